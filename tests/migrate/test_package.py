"""The package's public functions keep their names, whichever of its modules were imported before."""

import importlib

import ftbridge.migrate


def test_public_names_are_the_functions_even_after_the_modules_of_the_same_names_were_imported() -> None:
    for name in ("record", "retrain", "prove", "download", "status"):
        module = importlib.import_module(f"ftbridge.migrate.{name}")
        assert getattr(ftbridge.migrate, name) is getattr(module, name)
        assert callable(getattr(ftbridge.migrate, name))
