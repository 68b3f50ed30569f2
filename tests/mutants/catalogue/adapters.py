"""Mutants of how adapters read what strangers may have stored: each lets something act that must stay data."""

from tests.mutants.mutant import Edit, Mutant

SERIALIZER = "waypost.adapters._langgraph_serializer:"
DECODING = SERIALIZER + "_Decoding."
MACHINE = "waypost.adapters._strict_pickle:_Machine."
LANGGRAPH_TESTS = (
    "tests/unit/test_adapter_langgraph_serializer.py",
    "tests/unit/test_adapter_langgraph_serde.py",
)
AGENT_FRAMEWORK_TESTS = "tests/unit/test_adapter_agent_framework_values.py"

ADAPTERS: tuple[Mutant, ...] = (
    Mutant(
        "types-imported-by-name",
        "a stored value's type is imported and called, as LangGraph does",
        (
            Edit(DECODING + "_allows", "return key in self._own or key in _known()", "return True"),
            Edit(
                DECODING + "_built",
                "self._own.get(key) or _known()[key]",
                "getattr(importlib.import_module(module), name)",
            ),
        ),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "writes-unchecked",
        "a value that can't be read back is stored",
        (Edit(SERIALIZER + "_check", "if decoding.missing:", "if False:"),),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "json-names-objects",
        "JSON that names a class is taken for data, without a word",
        (Edit(SERIALIZER + "_no_object", 'if {"lc", "type", "id"} <= value.keys():', "if False:"),),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "any-method-called",
        "a stored value chooses the method that builds it",
        (
            Edit(DECODING + "_method", 'if method == "fromisoformat" and ', "if "),
            Edit(DECODING + "_method", "return found.fromisoformat", "return getattr(found, method)"),
        ),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "models-unvalidated",
        "a model of the application is built although its own checks reject the data",
        (
            Edit(
                SERIALIZER + "_model",
                "return build.model_validate(payload, by_alias=True, by_name=True)",
                "return build.model_construct(**payload)",
            ),
        ),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "zones-looked-for-anywhere",
        "the name of a time zone chooses the package that it is looked for in",
        (Edit(SERIALIZER + "_zone", "if key not in _zones():", "if False:"),),
        tests=("tests/properties/test_strict_values.py::test_a_time_zone_chooses_no_package_to_look_in",),
    ),
    Mutant(
        "nested-without-end",
        "values may be nested as deeply as the stack allows",
        (Edit(DECODING + "_hook", "self._depth > _MAX_DEPTH or self._free < 0", "self._free < 0"),),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "copied-without-end",
        "nested values may take any multiple of their size",
        (Edit(DECODING + "_hook", "self._depth > _MAX_DEPTH or self._free < 0", "self._depth > _MAX_DEPTH"),),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "permissive-serializer-taken",
        "LangGraph's own serializer is taken within an encrypting one",
        (
            Edit(
                SERIALIZER + "require_strict",
                "serde.serde if isinstance(serde, EncryptedSerializer) else serde",
                "serde",
            ),
        ),
        tests=LANGGRAPH_TESTS,
    ),
    Mutant(
        "pickle-calls-classes",
        "a pickle calls the constructors of the framework's classes",
        (Edit(MACHINE + "call", "if role not in (Role.VALUE, Role.APPLICATION):", "if False:"),),
        tests=(AGENT_FRAMEWORK_TESTS,),
    ),
    Mutant(
        "pickle-changes-classes",
        "a pickle changes what it did not make",
        (
            Edit(
                MACHINE + "build", "if id(target) not in self._made or isinstance(target, type):", "if False:"
            ),
        ),
        tests=(AGENT_FRAMEWORK_TESTS,),
    ),
    Mutant(
        "pickle-changes-enums",
        "a pickle changes members of enums for the whole process",
        (Edit(MACHINE + "_make", "if not isinstance(made, enum.Enum):", "if True:"),),
        tests=(AGENT_FRAMEWORK_TESTS,),
    ),
    Mutant(
        "pickle-sets-methods",
        "a pickle replaces a method of an object",
        (Edit("waypost.adapters._strict_pickle:_check_state", " or _is_code(cls, key)", ""),),
        tests=(AGENT_FRAMEWORK_TESTS,),
    ),
    Mutant(
        "pickle-imports",
        "modules of the framework are imported because a pickle names them",
        (
            Edit(
                "waypost.adapters._agent_framework_values:_imported_class",
                "sys.modules.get(module)",
                "__import__(module, fromlist=['x'])",
            ),
        ),
        tests=(AGENT_FRAMEWORK_TESTS,),
    ),
)
