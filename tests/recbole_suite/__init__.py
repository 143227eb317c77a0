"""RecBole's own tests with this package in RecBole's place; see :mod:`tests.recbole_suite.__main__`."""
