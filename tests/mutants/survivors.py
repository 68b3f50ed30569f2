"""Small changes to the model that no test notices, each with the reason why none can. See docs/mutation-testing.md."""

_SHORTCUT = "only a shortcut is missed: the long way round gives the same"
_THRESHOLD = "only another size from which the faster way is taken: both ways give the same"
_FALSY = "None is taken for false, and is not kept"
_UNREACHABLE = "never reached: mypy proves that the cases before are all there are"

SURVIVORS: dict[str, str] = {
    "waypost.model.retention.x_removed_by_compression__mutmut_8": "entries[1:0] and entries[1:1] are both empty",
    "waypost.model.session.x__create__mutmut_22": _SHORTCUT,
    "waypost.model.session.x__create__mutmut_23": _SHORTCUT,
    "waypost.model.session.x__create__mutmut_27": _SHORTCUT,
    "waypost.model.session.x__decide__mutmut_12": _UNREACHABLE,
    "waypost.model.session.x__decide__mutmut_147": _UNREACHABLE,
    "waypost.model.session.x__decide__mutmut_52": _FALSY,
    "waypost.model.session.x__kept_after_import__mutmut_3": _THRESHOLD,
    "waypost.model.session.x__kept_after_import__mutmut_4": _THRESHOLD,
    "waypost.model.session.x__kept_after_import__mutmut_5": _THRESHOLD,
    "waypost.model.session.x__kept_after_import__mutmut_6": _THRESHOLD,
    "waypost.model.session.x__kept_after_import__mutmut_20": _FALSY,
    "waypost.model.session.x__kept_after_import__mutmut_34": _FALSY,
    "waypost.model.session.x__settle__mutmut_19": "the number is also given as pinned, and nothing pinned is removed",
    "waypost.model.session.x_evolve__mutmut_3": _SHORTCUT,
    "waypost.model.session.x_evolve__mutmut_15": "an erasure is about no checkpoint: the variable is None",
    "waypost.model.session.x_evolve__mutmut_31": _UNREACHABLE,
    "waypost.model.session.x_evolve__mutmut_48": _UNREACHABLE,
    "waypost.model.session.x_evolve__mutmut_49": _THRESHOLD,
    "waypost.model.partition_state.xǁPartitionStateǁdecide__mutmut_4": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁdecide__mutmut_16": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁevolve__mutmut_7": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁevolve__mutmut_14": _UNREACHABLE,
    "waypost.model.index.xǁSessionǁadd__mutmut_3": "no number is added twice, so the two are never equal",
    "waypost.model.index.xǁSessionǁadd__mutmut_12": "the counter is set to the number that it already is",
    "waypost.model.index.xǁSessionǁadd_all__mutmut_1": _THRESHOLD,
    "waypost.model.index.xǁSessionǁretention_index__mutmut_1": _THRESHOLD,
}
