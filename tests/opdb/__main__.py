"""python -m tests.opdb [--every N] [--samples S] [--dtype D] [--only TEXT]: runs the database and reports.

Ends with the number of differences. Crashes of one operator end the run: use --only to find them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict

os.environ.setdefault("FLASHPOINT_STRICT", "1")

import torch  # noqa: E402

import flashpoint  # noqa: E402
from tests.opdb.check import Difference, check  # noqa: E402
from tests.opdb.expected import UNDEFINED_VALUES  # noqa: E402
from tests.opdb.samples import cases, full_name, operators  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.opdb")
    parser.add_argument("--every", type=int, default=1, help="take each Nth operator")
    parser.add_argument("--from", dest="start", type=int, default=0, help="starting here")
    parser.add_argument("--samples", type=int, default=None, help="samples of each operator")
    parser.add_argument("--dtype", default=None, help="such as complex64; float32 where there is none")
    parser.add_argument("--only", default="", help="operators with this in their name")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    flashpoint.config.poison_empty = True
    verdicts: Counter[str] = Counter()
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    differences = []
    start = time.monotonic()
    for op in operators()[options.start :: options.every]:
        name = full_name(op)
        if options.only and options.only not in name:
            continue
        if options.verbose:
            print(name, file=sys.stderr, flush=True)
        try:
            for case in cases(op, options.samples, options.dtype and getattr(torch, options.dtype)):
                verdict = check(case, values=op.name not in UNDEFINED_VALUES)
                if verdict is None:
                    continue
                verdicts["compiled" if verdict.compiled else "broke"] += 1
                if not verdict.compiled:
                    reasons[verdict.reason][str(case)] += 1
        except Difference as found:
            differences.append(str(found))
            print("DIFFERENCE", found, file=sys.stderr, flush=True)
        except Exception as error:
            differences.append(f"{name}: {type(error).__name__}: {error}")
            print("ERROR", differences[-1][:300], file=sys.stderr, flush=True)
    total = sum(verdicts.values())
    for reason, names in sorted(reasons.items(), key=lambda row: -sum(row[1].values())):
        listed = ", ".join(f"{name} {count}" for name, count in names.most_common(6))
        print(f"{sum(names.values()):6} {reason}\n       {len(names)} forms: {listed}")
    share = 100 * verdicts["compiled"] / max(total, 1)
    print(
        f"{total} samples, {verdicts['compiled']} compiled ({share:.2f}%), {verdicts['broke']} broke, "
        f"{len(differences)} differences, {time.monotonic() - start:.0f} s"
    )
    for line in differences:
        print("  " + line[:300])
    return len(differences)


if __name__ == "__main__":
    sys.exit(main())
