"""Counts the memory of the objects that a file describes, and limits it in proportion to the file's size."""

from gpulstm.errors import FormatError

TIMES, LEAST = 15, 6 << 20  # bytes of objects per byte of the file; bytes that any file may take
# What small objects take in CPython, in bytes.
SLOT = 9  # a place on the stack, and later in a list or tuple; both allocate ahead
TEXT = 17  # in addition to sys.getsizeof
LIST, DICT, SET, TUPLE, NUMBER, LONG = 65, 73, 225, 57, 41, 320  # empty ones, with their slot
MARK = 88  # while the entries above it are collected
FIRST_ITEMS = 32  # of a list
MOST_ITEM = 120  # of a dict or set that has just grown
OBJECT, ARRAY, STORAGE, MEMBER = 64, 160, 700, 800  # an Unread, a view, a storage of the file, an archive's member


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
            f"expected values of at most {most} bytes of memory in a file of {self.size} bytes, got more"
        )
