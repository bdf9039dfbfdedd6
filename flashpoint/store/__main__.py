"""python -m flashpoint.store: list, inspect, verify, gc, export, import, push, pull.

Exit status: 0, 1 if something is wrong with the store or the file, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence

from flashpoint import _C
from flashpoint.store.remote import connect_store
from flashpoint.store.transfer import StoreError, transfer


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m flashpoint.store", description="Look after the store.")
    parser.add_argument("--directory", help="of the store; by default that of the environment")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every record, and what the store holds")
    inspect = commands.add_parser("inspect", help="one record: the parts of its key, size, origin")
    inspect.add_argument("key", help="the key as `list` shows it, or its beginning")
    commands.add_parser("verify", help="read everything and check it")
    collect = commands.add_parser("gc", help="remove what is damaged or beyond the limit")
    collect.add_argument("--limit", type=int, metavar="MIB", help="by default the store's limit")
    for name, text in (("export", "write all records to one file"), ("import", "add the records of a file")):
        command = commands.add_parser(name, help=text)
        command.add_argument("path")
        command.add_argument("--key-file", help="file with the key that signs; its bytes are the key")
    for name, text in (("push", "give a Redis server all records"), ("pull", "copy all records of one")):
        command = commands.add_parser(name, help=text)
        command.add_argument("url")
        command.add_argument("--key-file", required=True, help="file with the key that signs records")
    return parser.parse_args(argv)


def _time(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds).isoformat(" ", "minutes")
    except (OverflowError, ValueError, OSError):
        return "?"


def _line(row: _C.StoreRow) -> str:
    if row["outcome"] != "hit":
        return f"{row['key'][:16]}  {row['layer']:7}  {row['outcome']}"
    when = _time(row["created"])
    return f"{row['key'][:16]}  {row['layer']:7}  {row['origin']:8}  {when:16}  {row['size']:>10}"


def _list(store: _C.Store) -> int:
    rows = store.list()
    for row in rows:
        print(_line(row))
    held = store.statistics()
    print(f"{len(rows)} records, {held['bytes']} bytes in {store.directory}")
    return _trouble(store)


def _trouble(store: _C.Store) -> int:
    """Says what stands in the way of reading the store at all."""
    reason = store.get({"flashpoint": "is the store readable?"})["outcome"]
    if reason in ("absent", "hit"):
        return 0
    print(f"{store.directory}: {_C._store_outcomes()[reason]}", file=sys.stderr)
    return 1


def _inspect(store: _C.Store, key: str) -> int:
    rows = [row for row in store.list() if row["key"].startswith(key.lower())]
    for row in rows:
        print(_line(row))
        for name, value in row["parts"].items():
            # Parts are data from a file: no control characters reach the terminal.
            print(f"  {_plain(name)} = {_plain(value)}")
    if not rows:
        print(f"no record whose key begins with {key!r}", file=sys.stderr)
    return 0 if rows else 1


def _plain(text: str) -> str:
    shown = text if len(text) <= 500 else f"{text[:500]}... ({len(text)} characters)"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def _verify(store: _C.Store) -> int:
    database, rows = store.verify()
    bad = [row for row in rows if row["outcome"] != "hit"]
    for row in bad:
        print(_line(row))
    if database not in ("hit", "absent"):
        print(f"{store.directory}: {_C._store_outcomes()[database]}")
    print(f"{len(rows)} records, {len(bad)} bad")
    return int(bool(bad) or database not in ("hit", "absent"))


def _collect(store: _C.Store, mebibytes: int | None) -> int:
    outcome = store.collect() if mebibytes is None else store.collect(mebibytes << 20)
    held = store.statistics()
    if outcome != "hit":
        print(f"{store.directory}: {_C._store_outcomes()[outcome]}", file=sys.stderr)
        return 1
    print(f"{held['evicted']} evicted; {held['records']} records, {held['bytes']} bytes")
    return 0


def _transfer(store: _C.Store, name: str, path: str, key_file: str | None) -> int:
    key = None
    try:
        if key_file is not None:
            with open(key_file, "rb") as stream:
                key = stream.read()
        count = transfer(store, name, path, key)
    except (StoreError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} records {'written' if name == 'save' else 'added'}")
    return 0


def _share(store: _C.Store, name: str, url: str, key_file: str) -> int:
    try:
        with open(key_file, "rb") as stream:
            remote = connect_store(store, url, stream.read(), timeout=5.0)
        count = remote.push() if name == "push" else remote.pull()
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} records {'given' if name == 'push' else 'added'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status."""
    args = _arguments(argv)
    store = _C.Store(args.directory) if args.directory else _C._store_shared()
    if args.command == "list":
        return _list(store)
    if args.command == "inspect":
        return _inspect(store, args.key)
    if args.command == "verify":
        return _verify(store)
    if args.command == "gc":
        return _collect(store, args.limit)
    if args.command in ("push", "pull"):
        return _share(store, args.command, args.url, args.key_file)
    return _transfer(store, "save" if args.command == "export" else "load", args.path, args.key_file)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(1)
