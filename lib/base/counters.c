#include "base/counters.h"

_Atomic uint64_t counters[COUNTER_KINDS];

const char *const counter_names[COUNTER_KINDS] = {
    [COUNTER_CALL] = "calls",
    [COUNTER_LOCKED] = "locked operations",
    [COUNTER_CAS_RETRY] = "CAS retries",
    [COUNTER_SHARED_LINE] = "shared lines written",
    [COUNTER_MAP] = "mapping calls",
    [COUNTER_REFILL] = "refills",
    [COUNTER_REMOTE_BLOCK] = "foreign frees",
    [COUNTER_REMOTE_POST] = "remote posts",
};
