# SPDX-License-Identifier: Apache-2.0
"""Where things are. The binary comes in the environment variable ROLLCALL."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEDGER = ROOT / "examples" / "ledger"
ENGINES = ROOT / "tests" / "engines"
GOLDEN_MODELS = ROOT / "tests" / "golden" / "models"
ROLLCALL = os.environ.get("ROLLCALL", "rollcall")
