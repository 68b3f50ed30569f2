"""Scripts of ``deploy/``, which is no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

DEPLOY = Path(__file__).parents[2] / "deploy"


def script(name: str) -> ModuleType:
    """``deploy/NAME.py``."""
    spec = importlib.util.spec_from_file_location(f"waypost_deploy_{name}", DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
