"""The ``twistd`` commands: for each protocol a module with its ``Options`` and its ``makeService``."""
