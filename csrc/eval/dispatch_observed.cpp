#define FP_OBSERVED 1
#define FP_EVALUATE evaluate_observed
#include "eval/dispatch.inc"

namespace flashpoint {

void prepare_evaluator() {
  ThreadContext unused;
  evaluate_plain(unused, nullptr, nullptr, 0);
  evaluate_observed(unused, nullptr, nullptr, 0);
}

}  // namespace flashpoint
