"""placeholder"""


def submit_check() -> None:
    """x"""
