"""ESI and EVE SSO as one local server that enforces their published rules.

It shares no code with the application it is used against: both were written from the same public
documents, so a rule misread on one side shows as a failure and not as two errors that agree. Start it with
`python -m simulator`, or in-process with `simulator.server.start`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before anything is imported that an older Python does not have
    sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])
