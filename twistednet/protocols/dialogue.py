"""Dialogues: what the support line asks and advises, and how it understands an answer.

A `Dialogue` is data: questions whose answers lead to other questions and, in the end, to advice or to a ticket. It
is written in TOML, in the form that `parse_dialogue` says, and checked when it is read: every answer leads somewhere,
everything is led to, nothing leads in a circle, and every reply fits in a datagram.

Sources: seed 004 §8.4, exercises 1 and 2; TOML 1.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, NoReturn, TypeAlias, TypeVar

MAX_REPLY = 1199
"""The longest reply, in bytes: with its headers it fits in the 1,280 that every IPv6 network carries unbroken."""

# Words

Phrase: TypeAlias = tuple[str, ...]
"""Words in a row, as `words` has them."""

_TOKEN = re.compile(r"[^\W_]+(?:[.'\u2019-][^\W_]+)*|[,.;:!?]")
_IN_A_WORD = str.maketrans("", "", "'\u2019-")
_NEGATIONS = frozenset(
    {"not", "no", "nothing", "never", "without", "isnt", "arent", "doesnt", "dont", "didnt", "wont", "cant"}
)


def words(text: str) -> Phrase:
    """The words of `text` as they are compared: *Wi-Fi isn't on!* is ``wifi``, ``isnt``, ``on``."""
    return tuple(word for word, _ in _words_and_negations(text))


def _words_and_negations(text: str) -> list[tuple[str, bool]]:
    """The words of `text`, and whether the word before denies each: *not red*, but not *no, red*."""
    found = []
    before = ""
    for token in _TOKEN.findall(text.casefold()):
        word = token.translate(_IN_A_WORD)
        if word[0].isalnum():
            found.append((word, before in _NEGATIONS))
        before = word
    return found


def _phrases(*texts: str) -> frozenset[Phrase]:
    return frozenset(map(words, texts))


_SYNONYMS: Mapping[Phrase, frozenset[Phrase]] = {
    ("yes",): _phrases("yes", "y", "yeah", "yep", "yup", "sure", "of course", "ok", "okay", "aye", "true", "correct"),
    ("no",): _phrases("no", "n", "nope", "nah", "not", "not yet", "not really", "none", "never", "negative", "false"),
    ("unsure",): _phrases(
        "unsure", "not sure", "don't know", "do not know", "dunno", "no idea", "can't tell", "cannot tell", "maybe"
    ),
}
"""What a keyword brings with it."""

COMMANDS: Mapping[Phrase, str] = {
    **dict.fromkeys(_phrases("help", "h"), "help"),
    **dict.fromkeys(_phrases("back"), "back"),
    **dict.fromkeys(_phrases("quit", "q", "exit", "bye", "goodbye"), "quit"),
}
"""The words that a customer can always say, and what each means."""

BESIDE_COMMANDS = frozenset({"please", "go", "me"})
"""Words that may stand with them."""

_BESIDE_NUMBERS = frozenset({"option", "answer", "number", "choice"})

# Dialogues


@dataclass(frozen=True)
class Answer:
    """An answer to a question.

    :param option: how it is offered.
    :param keywords: what it is known by, besides its number.
    :param leads_to: the name of a question or an ending.
    """

    option: str
    keywords: frozenset[Phrase]
    leads_to: str


@dataclass(frozen=True)
class Question:
    """A question and its answers.

    :param text: its lines.
    """

    name: str
    text: tuple[str, ...]
    answers: tuple[Answer, ...]

    @cached_property
    def lines(self) -> list[str]:
        """The question as it is asked, with its options, numbered from 1."""
        return [*self.text, *(f"  {i}. {answer.option}" for i, answer in enumerate(self.answers, 1))]

    def understand(self, message: str) -> Answer | None:
        """The answer that `message` gives; ``None`` where it gives none, or more than one."""
        said = _words_and_negations(message)
        spoken = tuple(word for word, _ in said)
        if set(spoken[:-1]) <= _BESIDE_NUMBERS and spoken[-1:] in self._numbers:
            return self._numbers[spoken[-1:]]
        for length in range(self._longest, 0, -1):
            found = {
                self._keywords[spoken[i : i + length]]
                for i in range(len(spoken) - length + 1)
                if spoken[i : i + length] in self._keywords and not said[i][1]
            }
            if found:
                return found.pop() if len(found) == 1 else None
        return None

    @cached_property
    def _numbers(self) -> Mapping[Phrase, Answer]:
        return {(str(i),): answer for i, answer in enumerate(self.answers, 1)}

    @cached_property
    def _keywords(self) -> Mapping[Phrase, Answer | None]:
        # "Not sure" is no answer by default; that "sure" is in it must not make it one.
        keywords: dict[Phrase, Answer | None] = dict.fromkeys(_SYNONYMS["unsure",])
        for answer in self.answers:
            keywords.update(dict.fromkeys(answer.keywords, answer))
        return keywords

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._keywords))


@dataclass(frozen=True)
class Ending:
    """What a diagnosis comes to.

    :param text: its lines; ``{ticket}`` stands for the number of the ticket.
    :param needs_ticket: whether a human has to act.
    """

    name: str
    text: tuple[str, ...]
    needs_ticket: bool


@dataclass(frozen=True)
class Dialogue:
    """All that is asked and advised.

    :param greeting: the lines before the first question.
    :param goodbye: the lines after ``quit``, and to who has not been understood too often.
    :param start: the name of the first question.
    :param questions: by name; answers lead from `start` to every one, and never back.
    :param endings: by name.
    """

    greeting: tuple[str, ...]
    goodbye: tuple[str, ...]
    start: str
    questions: Mapping[str, Question]
    endings: Mapping[str, Ending]


# What a conversation says besides

HELP = (
    "Answer with the number of an option, or in your own words.",
    "back returns to the question before, quit ends the conversation.",
)
NOT_UNDERSTOOD = ("Sorry, I did not understand that. Please choose one of the options, by number or by word.",)
FIRST = ("This is the first question.",)
NEVER_UNDERSTOOD = ("Sorry, I can't make out what you need. Please call again, and ask for help.",)

# Dialogues, from TOML

_Path: TypeAlias = tuple[str, ...]
_T = TypeVar("_T")
_KINDS: Mapping[type, str] = {str: "a string", dict: "a table", list: "a list"}
_NAME = re.compile(r"[a-zA-Z0-9_-]+")


class DialogueError(ValueError):
    """A text is no dialogue; its argument is the one line that says where, and why."""


def parse_dialogue(text: str, name: str) -> Dialogue:
    """Read a dialogue in TOML, and check it.

    ::

        greeting = "Hello."
        goodbye = "Goodbye."
        start = "power"                              # the first question

        [question.power]
        text = "Is the light on?"
        1 = { say = "yes", next = "restart" }        # the answers, numbered as they are offered
        2 = { say = "no", words = ["off", "dark"], next = "dead" }

        [advice.restart]
        text = "Restart it."

        [ticket.dead]
        text = "We will call you: your ticket is {ticket}."

    ``say`` is how an answer is offered, and a keyword; ``words`` are more. *yes*, *no* and *unsure* bring their
    synonyms with them. ``next`` is the name of a question, of advice or of a ticket.

    :param name: what to call `text` in an error, such as the name of its file.
    :raises DialogueError: ``NAME: line N: …``, for the first thing that is wrong.
    """
    return _Reader(text.replace("\r\n", "\n"), name).read()


class _Reader:
    """Reads one dialogue."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        try:
            self._data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
            what, _, where = str(error).partition(" (at ")
            line = re.match(r"line (\d+)", where)
            self._fail_at(int(line[1]) if line else text.count("\n") + 1, what[:1].lower() + what[1:])

    def read(self) -> Dialogue:
        """The dialogue.

        :raises DialogueError: for what is wrong.
        """
        self._check_keys((), ("greeting", "goodbye", "start", "question", "advice", "ticket"))
        greeting, goodbye = self._lines(("greeting",)), self._lines(("goodbye",))
        questions = {path[1]: self._question(path) for path in self._tables("question")}
        endings: dict[str, Ending] = {}
        for path in [*self._tables("advice"), *self._tables("ticket")]:
            if path[1] in questions or path[1] in endings:
                self._fail(path, f"there is another {path[1]}")
            endings[path[1]] = self._ending(path)
        start = self._value(("start",), str)
        if start not in questions:
            self._fail(("start",), f"start is {start!r}, which is no question")
        dialogue = Dialogue(greeting, goodbye, start, questions, endings)
        self._check_ways(dialogue)
        self._check_sizes(dialogue)
        return dialogue

    def _question(self, path: _Path) -> Question:
        numbers = [key for key in self._value(path, dict) if key != "text"]
        due = [str(i) for i in range(1, len(numbers) + 1)]
        for number, expected in zip(numbers, due, strict=True):
            if not number.isdecimal():
                self._fail((*path, number), f"{_where(path)} has an unknown key, {number!r}; there are: text, 1, 2, …")
            if number != expected:
                self._fail((*path, number), f"{_where(path)} has answer {number} where {expected} is due")
        question = Question(path[1], self._lines((*path, "text")), tuple(self._answer((*path, n)) for n in numbers))
        if not numbers:
            self._fail(path, f"{_where(path)} has no answers: it is a dead end")
        known: dict[Phrase, str] = {}
        for number, answer in zip(numbers, question.answers, strict=True):
            for keyword in sorted(answer.keywords):
                if keyword in known:
                    what = f"{' '.join(keyword)!r} is a keyword of answers {known[keyword]} and {number}"
                    self._fail((*path, number), f"{_where(path)}: {what}")
                known[keyword] = number
        return question

    def _answer(self, path: _Path) -> Answer:
        self._check_keys(path, ("say", "words", "next"))
        option = self._value((*path, "say"), str)
        if not option.isprintable():
            self._fail(path, f"{_where(path)}: what it says is not a line that can be printed")
        given = self._value((*path, "words"), list) if "words" in self._value(path, dict) else []
        keywords: set[Phrase] = set()
        for text in [option, *given]:
            if not isinstance(text, str):
                self._fail(path, f"{_where(path)}: {text} is not a string")
            keyword = words(text)
            if not keyword:
                self._fail(path, f"{_where(path)}: {text!r} has no words in it")
            if keyword in keywords:
                self._fail(path, f"{_where(path)}: {text!r} is there twice")
            if keyword in COMMANDS or (len(keyword) == 1 and keyword[0].isdecimal()):
                taken = "a command" if keyword in COMMANDS else "an answer's number"
                self._fail(path, f"{_where(path)}: {text!r} can't be a keyword, it is {taken}")
            keywords.add(keyword)
        for keyword in [*keywords]:
            keywords |= _SYNONYMS.get(keyword, frozenset())
        return Answer(option, frozenset(keywords), self._value((*path, "next"), str))

    def _ending(self, path: _Path) -> Ending:
        self._check_keys(path, ("text",))
        text = self._lines((*path, "text"))
        needs_ticket = path[0] == "ticket"
        if needs_ticket != any("{ticket}" in line for line in text):
            what = "lacks {ticket}" if needs_ticket else "has {ticket}, and is no ticket"
            self._fail((*path, "text"), f"{_where(path)}, text {what}")
        return Ending(path[1], text, needs_ticket)

    # Values, and what is wrong with them

    def _value(self, path: _Path, kind: type[_T]) -> _T:
        """The value at `path`, whose table there is."""
        table: Any = self._data
        for key in path[:-1]:
            table = table[key]
        if path[-1] not in table:
            self._fail(path[:-1], f"{_where(path[:-1])} has no {path[-1]}")
        value = table[path[-1]]
        if not isinstance(value, kind):
            self._fail(path, f"{_where(path)} is not {_KINDS[kind]}")
        return value

    def _lines(self, path: _Path) -> tuple[str, ...]:
        text = self._value(path, str).strip("\n")
        lines = tuple(text.split("\n"))
        if not text or not all(line.isprintable() for line in lines):
            self._fail(path, f"{_where(path)} is {'not text that can be printed' if text else 'empty'}")
        return lines

    def _tables(self, kind: str) -> list[_Path]:
        if kind not in self._data:
            return []
        paths: list[_Path] = [(kind, name) for name in self._value((kind,), dict)]
        for path in paths:
            if not _NAME.fullmatch(path[1]):
                self._fail(path, f"{path[1]!r} can't be a name: it is made of letters, digits, - and _")
            self._value(path, dict)
        return paths

    def _check_keys(self, path: _Path, known: tuple[str, ...]) -> None:
        table = self._value(path, dict) if path else self._data
        for key in table:
            if key not in known:
                there = ", ".join(known)
                self._fail((*path, key), f"{_where(path)} has an unknown key, {key!r}; there are: {there}")

    def _check_ways(self, dialogue: Dialogue) -> None:
        """Every answer leads somewhere, nowhere twice, and everything is led to."""
        ways: dict[str, list[str]] = {}
        for question in dialogue.questions.values():
            ways[question.name] = [answer.leads_to for answer in question.answers]
            for number, name in enumerate(ways[question.name], 1):
                if name not in dialogue.questions and name not in dialogue.endings:
                    path: _Path = ("question", question.name, str(number), "next")
                    self._fail(path, f"{_where(path[:-1])} leads to {name!r}, which there is not")
        try:
            TopologicalSorter(ways).prepare()
        except CycleError as error:
            cycle = error.args[1][::-1]
            self._fail(("question", cycle[0]), f"questions lead in a circle: {' > '.join(cycle)}")
        reached: set[str] = set()
        to_visit = [dialogue.start]
        while to_visit:
            name = to_visit.pop()
            if name not in reached:
                reached.add(name)
                to_visit += ways.get(name, [])
        for path in [*self._tables("question"), *self._tables("advice"), *self._tables("ticket")]:
            if path[1] not in reached:
                self._fail(path, f"{_where(path)} is led to by no answer")

    def _check_sizes(self, dialogue: Dialogue) -> None:
        """Every reply is short enough for a datagram."""
        before = max((HELP, NOT_UNDERSTOOD, FIRST), key=lambda lines: len("".join(lines).encode()))
        first = dialogue.questions[dialogue.start].lines
        replies = [
            (("greeting",), [*dialogue.greeting, "", *first]),
            (("goodbye",), [*NEVER_UNDERSTOOD, *dialogue.goodbye]),
            *((("question", question.name), [*before, *question.lines]) for question in dialogue.questions.values()),
            *(
                (("ticket" if ending.needs_ticket else "advice", ending.name), [*ending.text])
                for ending in dialogue.endings.values()
            ),
        ]
        for path, lines in replies:
            size = len("\n".join(["#999999999 end", *lines, ""]).encode())
            if size > MAX_REPLY:
                self._fail(path, f"{_where(path)} makes a reply of {size} bytes, more than {MAX_REPLY}")

    def _fail(self, path: _Path, what: str) -> NoReturn:
        """Say what is wrong with what is at `path`."""
        self._fail_at(_positions(self._text).get(path, 1), what)

    def _fail_at(self, line: int, what: str) -> NoReturn:
        raise DialogueError(f"{self._name}: line {line}: {what}") from None


def _where(path: _Path) -> str:
    """`path` in words: *question power, answer 1*."""
    if not path:
        return "the dialogue"
    where = " ".join(path[:2])
    if len(path) > 2:
        where += f", answer {path[2]}" if path[2].isdecimal() else f", {path[2]}"
    return ", ".join([where, *path[3:]])


def _positions(text: str) -> Mapping[_Path, int]:
    """On which line of `text`, which is valid TOML, each table and key begins.

    A statement of TOML begins and ends with a line, and makes sense by itself; `tomllib`, which keeps no positions,
    reads each alone here.
    """
    positions: dict[_Path, int] = {}

    def note(path: _Path, value: object, line: int) -> _Path:
        positions.setdefault(path, line)
        last = path
        if isinstance(value, dict):
            for key, inner in value.items():
                last = note((*path, key), inner, line)
        return last

    table: _Path = ()
    statement = ""
    begins = 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        try:
            value = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if line.lstrip().startswith("[") and begins == number:
            table = note((), value, begins)
        else:
            note(table, value, begins)
        statement = ""
        begins = number + 1
    return positions
