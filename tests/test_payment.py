"""The example that pays: killed right after the money was sent, it has paid once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAY = Path(__file__).resolve().parent.parent / "examples" / "payment" / "pay.py"


def test_a_payment_is_made_once_however_its_function_settles_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PAY)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    head, *rows = done.stdout.splitlines()
    assert head.split()[:2] == ["function", "settled"]
    made = {row.split()[0]: row.split()[-4] for row in rows}
    assert made == {"pay": "1", "transfer": "1", "wire": "1"}
    assert [row.endswith("Paid, receipt R-1.") for row in rows] == [True, True, True]
