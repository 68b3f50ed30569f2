"""Small changes to the model that no test notices, each with the reason why none can. See docs/mutation-testing.md."""

_SHORTCUT = "only a shortcut is missed: the long way round gives the same"
_FALSY = "None is taken for false, and is not kept"
_UNREACHABLE = "never reached: mypy proves that the cases before are all there are"

SURVIVORS: dict[str, str] = {
    "waypost.model.retention.x_removed_by_compression__mutmut_8": "entries[1:0] and entries[1:1] are both empty",
    "waypost.model.session.x__create__mutmut_21": _SHORTCUT,
    "waypost.model.session.x__create__mutmut_22": _SHORTCUT,
    "waypost.model.session.x__create__mutmut_26": _SHORTCUT,
    "waypost.model.session.x__create__mutmut_27": _SHORTCUT,
    "waypost.model.session.x__decide__mutmut_11": _UNREACHABLE,
    "waypost.model.session.x__decide__mutmut_146": _UNREACHABLE,
    "waypost.model.session.x__decide__mutmut_59": _FALSY,
    "waypost.model.session.x__import__mutmut_105": _FALSY,
    "waypost.model.session.x_evolve__mutmut_10": _UNREACHABLE,
    "waypost.model.session.x_evolve__mutmut_27": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁdecide__mutmut_4": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁdecide__mutmut_16": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁevolve__mutmut_7": _UNREACHABLE,
    "waypost.model.partition_state.xǁPartitionStateǁevolve__mutmut_14": _UNREACHABLE,
    "waypost.model.index.xǁSessionǁadd__mutmut_2": "no number is added twice, so the two are never equal",
}
