"""Memory for what a file describes: counted as it is taken, and limited by the size of the file."""

from gpulstm.errors import FormatError

TIMES, LEAST = 15, 6 << 20  # bytes of objects for each byte of the file; and what every file may take
# What CPython takes for small things, in bytes.
SLOT = 9  # a place on the stack, and later in a list or tuple; both grow ahead
TEXT = 17  # beside what sys.getsizeof tells
LIST, DICT, SET, TUPLE, NUMBER, LONG = 65, 73, 225, 57, 41, 320  # empty ones, in their slot
MARK = 88  # while the entries above it are gathered
FIRST_ITEMS = 32  # of a list
MOST_ITEM = 120  # of a dict or set that has just grown
OBJECT, ARRAY, STORAGE, MEMBER = 64, 160, 700, 800  # an Unread, a view, what a file's storage and its member take


class Budget:
    """The memory that the objects of one file may take."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = max(LEAST, TIMES * size)

    def spend(self, cost: int) -> None:
        """Raises FormatError when more is taken than the file's size allows."""
        self.left -= cost
        if self.left < 0:
            raise self.error()

    def error(self) -> FormatError:
        most = max(LEAST, TIMES * self.size)
        return FormatError(
            f"expected values that take at most {most} bytes of memory, as a file of {self.size} bytes may"
        )
