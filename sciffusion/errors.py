"""The one exception that people see: something outside the program was wrong."""


class InputError(ValueError):
    """A file, flag or weight from outside cannot be used.

    The message is one line that says what was wrong, where (file, record, line) and what to do.
    Entry points print it without a traceback and exit with code 2.
    """
