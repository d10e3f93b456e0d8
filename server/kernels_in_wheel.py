"""Puts the compiled kernels into a wheel, which is one of a platform then. Hatchling calls this.

Without a compiler, or on another kind of machine, the wheel is pure and runs on torch. An editable install is
left as it is: `python -m helios_server.native.build` compiles beside the sources.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NATIVE = Path("server/helios_server/native")


class KernelsInWheel(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        build = _build_module(Path(self.root) / _NATIVE / "build.py")
        try:
            file = build.build()
        except build.BuildError as error:
            self.app.display_warning(f"a wheel without native kernels: {error}")
            return
        build_data["force_include"][str(file)] = f"helios_server/native/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _build_module(file: Path) -> ModuleType:
    """By its path: the package around it needs what a wheel's builder does not have."""
    spec = importlib.util.spec_from_file_location("helios_native_build", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
