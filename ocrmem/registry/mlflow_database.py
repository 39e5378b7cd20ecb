"""The sqlite file of a local MLflow registry: whole or not there, and at home wherever its folder lies.

MLflow makes its tables in dozens of steps, and a stop between two of them leaves a file that no later start accepts: a
new database is made under another name and renamed. MLflow stores the artifacts' absolute places; here they always mean
``artifacts/`` beside the file. Readers find a package by its run's id (`place_of`), and before anything is written the
stored places of a folder that was moved or copied become those of here (`ensure`).

This module knows MLflow's tables; MLflow itself is `mlflow_backend`'s.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ocrmem.console import note
from ocrmem.errors import ConfigError, Problem, first_line
from ocrmem.files import locked
from ocrmem.health import ANSWER_SECONDS
from ocrmem.registry.backend import PACKAGE_TAG, sqlite_path

PACKAGE_FOLDER = "adapter"  # among a run's artifacts
_FIELD = "register.uri"
_PATIENCE = 60.0  # seconds for another `register` to make the database
_PLACE = re.compile(rf"/artifacts/(?P<run>[0-9a-f]{{32}})/artifacts/{PACKAGE_FOLDER}/?")
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_HOMES = """
    SELECT DISTINCT artifact_location FROM experiments WHERE name = ? OR experiment_id IN
        (SELECT experiment_id FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid WHERE tags.key = ?)
"""
_SEEDED = {"alembic_version", "workspaces"}  # tables that MLflow itself puts rows into
_LOCKED = (
    "another process writes to it",
    "Try again when it is done, or use an MLflow server",
)
_UNWRITABLE = ("it cannot be written to", "Make the file and its folder writable, or name another file")
_DAMAGED = (
    "it is damaged, or no database",
    "Restore a copy of it, or move it away: `ocrmem register` makes a new one",
)
_CAUSES = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_READONLY": _UNWRITABLE,
    "SQLITE_CANTOPEN": _UNWRITABLE,
    "SQLITE_PERM": _UNWRITABLE,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_FULL": ("its disk is full", "Free space there"),
    "SQLITE_IOERR": ("its disk does not read or write", "Check the disk and the mount"),
}


class State(Enum):
    """What there is of a database."""

    ABSENT = auto()
    UNFINISHED = auto()  # its making was interrupted, and it holds nothing
    WHOLE = auto()


@dataclass(frozen=True)
class Schema:
    """The versions of MLflow's tables that the installed MLflow knows."""

    head: str  # the one that it works with
    known: frozenset[str]


@dataclass(frozen=True)
class DatabaseFile:
    """The database file of ``register.uri``.

    Attributes:
        shown: as the setting names it.
        path: behind a link, if the setting names one: the artifacts lie beside the file itself.
    """

    shown: str
    path: Path

    @classmethod
    def of(cls, uri: str) -> DatabaseFile | None:
        """Return the file of ``sqlite:///file``, or None for any other registry.

        Raises:
            ConfigError: MLflow would read another file's name.
        """
        given = sqlite_path(uri)
        if given is None:
            return None
        if "?" in uri:
            message = "has a '?', at which the name of a database's file ends"
            raise ConfigError.of(_FIELD, message, "Name a file without it, such as a relative one")
        return cls(str(given), given.resolve() if given.is_symlink() else given)

    @property
    def address(self) -> str:
        """The URI for MLflow, absolute: it keeps an engine for each, which stays in the folder of its first use."""
        return f"sqlite:///{self.path.absolute()}"

    @property
    def artifacts(self) -> Path:
        return self.path.parent.resolve() / "artifacts"

    def look(self, schema: Schema, *, write: bool) -> State:
        """Open the database and see what it holds, without changing it.

        Args:
            write: whether it must be writable, too.

        Raises:
            ConfigError: it cannot be used: locked, unwritable, damaged, or of another version of MLflow.
        """
        if not self.path.exists():
            return State.ABSENT
        with self._open() as db:
            if write:
                db.execute("BEGIN IMMEDIATE")  # takes the lock of writers
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = (
                db.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in tables else []
            )
            version = versions[0][0] if versions else None
            if version == schema.head:
                return State.WHOLE
            if not tables <= {"alembic_version"} and "experiments" not in tables:
                raise self._refused("is a database of something else", "Name another file")
            if not any(_has_rows(db, table) for table in tables - _SEEDED):
                return State.UNFINISHED
        if version is None:
            raise self._refused(*_DAMAGED)
        if version in schema.known:
            remedy = f"Copy the file, then run `mlflow db upgrade sqlite:///{self.shown}`"
            raise self._refused(f"was made by an older MLflow (its tables are of version {version})", remedy)
        message = f"was made by a newer MLflow (its tables are of version {version})"
        raise self._refused(message, "Install that MLflow, or name another file")

    def ensure(self, schema: Schema, make: Callable[[Path, str], None], name: str) -> None:
        """Let there be a whole database whose artifacts lie beside it.

        Args:
            make: makes an empty one, as a file of this name and with this URI for artifacts, and closes it.
            name: of the registered model, whose experiment is ocrmem's even if it has no runs yet.

        Raises:
            ConfigError: see `look`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path, "register", wait=_PATIENCE):
            state = self.look(schema, write=True)
            if state is State.WHOLE:
                self._take_home(name)
                return
            unfinished = " anew: an interrupted start left it unfinished and empty" if state is State.UNFINISHED else ""
            note(f"Making the registry database {self.shown}{unfinished} (several seconds, once).")
            new = self.path.absolute().with_name(f".{self.path.name}.new")  # see `address`
            _delete(new)
            make(new, self.artifacts.as_uri())
            # A journal that outlived the old file would be played back into the new one.
            for journal in _journals(self.path):
                journal.unlink(missing_ok=True)
            new.replace(self.path)

    def place_of(self, source: str) -> Path | None:
        """Return where the package of a version lies, whatever was the folder's place when ``source`` was written.

        Args:
            source: as MLflow stores it. One that ocrmem has not written gives None.
        """
        match = _PLACE.search(source)
        if match is None or match.end() != len(source) or not source.startswith(("file:", "/")):
            return None
        return self.artifacts / match["run"] / "artifacts" / PACKAGE_FOLDER

    def problem(self, error: sqlite3.Error) -> Problem:
        """Return what an error of sqlite means, and what to do."""
        kind = "_".join((getattr(error, "sqlite_errorname", None) or "").split("_")[:2])
        unknown = (f"it cannot be used ({first_line(error)})", "Check the file, its folder and its disk")
        cause, remedy = _CAUSES.get(kind, unknown)
        return Problem(_FIELD, f"the registry database {self.shown}: {cause}", remedy)

    def _refused(self, message: str, remedy: str) -> ConfigError:
        return ConfigError.of(_FIELD, f"the registry database {self.shown} {message}", remedy)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Connect without beginning a transaction; what is not committed in the block is undone."""
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=ANSWER_SECONDS, isolation_level=None)) as db:
                yield db
        except sqlite3.Error as error:
            raise ConfigError(self.problem(error)) from None

    def _take_home(self, name: str) -> None:
        """Rewrite the places of artifacts that lay beside this file where it, or what it is a copy of, was before."""
        here = self.artifacts.as_uri()
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            for (home,) in db.execute(_HOMES, (name, PACKAGE_TAG)).fetchall():
                if home == here or not re.fullmatch(r"file:.*/artifacts", home or ""):
                    continue
                for table, column in _PLACES:
                    moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? "
                    within = f"OR substr({column}, 1, ?) = ?"
                    db.execute(moved + within, (here, len(home) + 1, home, len(home) + 1, f"{home}/"))
            db.execute("COMMIT")


def _has_rows(db: sqlite3.Connection, table: str) -> bool:
    quoted = table.replace('"', '""')
    mine = " WHERE experiment_id <> 0" if table == "experiments" else ""  # 0 is MLflow's own
    return db.execute(f'SELECT 1 FROM "{quoted}"{mine} LIMIT 1').fetchone() is not None


def _journals(database: Path) -> list[Path]:
    return [database.with_name(database.name + end) for end in ("-journal", "-wal", "-shm")]


def _delete(database: Path) -> None:
    for file in (database, *_journals(database)):
        file.unlink(missing_ok=True)
