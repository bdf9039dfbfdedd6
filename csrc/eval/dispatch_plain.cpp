#define FP_OBSERVED 0
#define FP_EVALUATE evaluate_plain
#include "eval/dispatch.inc"
