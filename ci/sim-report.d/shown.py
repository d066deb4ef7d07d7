"""The hash of what docs/'s picture shows of a page: all of it down to its connections. What stands further down, such as the digest,
may change without the picture.

    shown.py PAGE
"""

import hashlib
import pathlib
import sys

shown, rest = pathlib.Path(sys.argv[1]).read_text().split('<section id="times">')
print(hashlib.sha256(shown.encode()).hexdigest())
