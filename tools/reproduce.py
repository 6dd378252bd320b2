"""Evaluate published weights as they were published: `python tools/reproduce.py --weights
NAME_OR_FILE --data FOLDER`.

Exit status: 0 ours is within the tolerance of the published figure, on the complete set; 1 it is
not, or an error (one line on stderr); 3 there is nothing to compare with: no published figure,
--limit, or a set that is not complete. The numbers are in OUT either way.
"""

from ppcls_nextvit.cli import reproduce
from ppcls_nextvit.cli.common import main_of

main = main_of(reproduce, __doc__)

if __name__ == "__main__":
    raise SystemExit(main())
