"""`python -m services.cli …` is `stereospot …`."""

import sys

from services.cli import main

sys.exit(main())
