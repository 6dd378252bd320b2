#include "plan.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace nextvit::dnnl {
namespace {

struct Engine {
  Owned<dnnl_engine, dnnl_engine_destroy> engine;
  Owned<dnnl_stream, dnnl_stream_destroy> stream;

  Engine() {
    dnnl_engine* made_engine = nullptr;
    check(dnnl_engine_create(&made_engine, CPU, 0), "engine");
    engine.reset(made_engine);
    dnnl_stream* made_stream = nullptr;
    check(dnnl_stream_create(&made_stream, made_engine, IN_ORDER), "stream");
    stream.reset(made_stream);
  }
};

const Engine& of_thread() {
  thread_local const Engine made;
  return made;
}

// The thread's scratch memory, of `bytes` or more; what was in it is lost when it grows.
char* scratch(size_t bytes) {
  thread_local Memory<char> held;
  thread_local size_t size = 0;
  if (bytes > size) {
    held.reset();
    size = 0;
    held = memory<char>(static_cast<int64_t>(bytes));
    size = bytes;
  }
  return held.get();
}

bool expected() {
  const auto is = [](const char* found, const char* wanted) { return !std::strcmp(found, wanted); };
  return dnnl_version()->major == 3 && is(dnnl_status2str(UNIMPLEMENTED), "unimplemented") &&
         is(dnnl_dt2str(BF16), "bf16") && is(dnnl_dt2str(F32), "f32") &&
         is(dnnl_fmt_tag2str(ANY), "any") && is(dnnl_fmt_tag2str(A), "a") &&
         is(dnnl_fmt_tag2str(ABCD), "abcd") && is(dnnl_fmt_tag2str(ABCDE), "abcde") &&
         is(dnnl_prop_kind2str(FORWARD_TRAINING), "forward_training") &&
         is(dnnl_alg_kind2str(DIRECT), "convolution_direct") && is(dnnl_alg_kind2str(RELU), "eltwise_relu") && is(dnnl_engine_kind2str(CPU), "cpu") &&
         is(dnnl_scratchpad_mode2str(USER_SCRATCHPAD), "user");
}

}  // namespace

void check(int status, const char* what) {
  if (status != SUCCESS) throw std::runtime_error(std::string("oneDNN, ") + what + ": " + dnnl_status2str(status));
}

Plans& plans() {
  static const bool fits = expected();
  if (!fits) throw std::runtime_error("this oneDNN is not the one that the operators were written for");
  thread_local Plans made;
  return made;
}

dnnl_engine* engine() { return of_thread().engine.get(); }

OwnedLayout layout(const std::vector<int64_t>& sizes, Type type, Tag tag) {
  dnnl_dims_t dims = {};
  std::copy(sizes.begin(), sizes.end(), dims);
  dnnl_memory_desc* made = nullptr;
  check(dnnl_memory_desc_create_with_tag(&made, static_cast<int>(sizes.size()), dims, type, tag), "layout");
  return OwnedLayout(made);
}

OwnedLayout strided(const std::vector<int64_t>& sizes, Type type, const std::vector<int64_t>& strides) {
  dnnl_dims_t dims = {}, steps = {};
  std::copy(sizes.begin(), sizes.end(), dims);
  std::copy(strides.begin(), strides.end(), steps);
  dnnl_memory_desc* made = nullptr;
  const int axes = static_cast<int>(sizes.size());
  check(dnnl_memory_desc_create_with_strides(&made, axes, dims, type, steps), "layout");
  return OwnedLayout(made);
}

OwnedAttributes attributes(After after) {
  dnnl_primitive_attr* made = nullptr;
  check(dnnl_primitive_attr_create(&made), "attributes");
  OwnedAttributes owned(made);
  check(dnnl_primitive_attr_set_scratchpad_mode(made, USER_SCRATCHPAD), "attributes");
  if (after.adds || after.relu) {
    dnnl_post_ops* steps = nullptr;
    check(dnnl_post_ops_create(&steps), "attributes");
    const Owned<dnnl_post_ops, dnnl_post_ops_destroy> held(steps);
    if (after.adds) check(dnnl_post_ops_append_sum(steps, 1.0f, 0, F32), "attributes");
    if (after.relu) check(dnnl_post_ops_append_eltwise(steps, RELU, 0.0f, 0.0f), "attributes");
    check(dnnl_primitive_attr_set_post_ops(made, steps), "attributes");
  }
  return owned;
}

dnnl_memory* Plan::place(const dnnl_memory_desc* of, bool given, size_t at) {
  dnnl_memory* made = nullptr;
  check(dnnl_memory_create(&made, of, engine(), nullptr), "memory");
  places_.push_back({OwnedMemory(made), given, at});
  return made;
}

dnnl_memory* Plan::given(size_t at, const dnnl_memory_desc* of) { return place(of, true, at); }

dnnl_memory* Plan::between(const dnnl_memory_desc* of) {
  dnnl_memory* const made = place(of, false, used_);
  used_ += static_cast<size_t>(up(static_cast<int64_t>(dnnl_memory_desc_get_size(of)), ALIGNMENT));
  most_ = std::max(most_, used_);
  return made;
}

dnnl_memory* Plan::in_layout(dnnl_memory* from, const dnnl_memory_desc* of, const dnnl_memory_desc* to) {
  if (dnnl_memory_desc_equal(of, to)) return from;
  dnnl_memory* const made = between(to);
  copy(from, of, made, to);
  return made;
}

dnnl_memory* Plan::output(dnnl_memory* to, const dnnl_memory_desc* of, const dnnl_memory_desc* by) {
  return dnnl_memory_desc_equal(of, by) ? to : between(by);
}

void Plan::written(dnnl_memory* made, const dnnl_memory_desc* by, dnnl_memory* to,
                   const dnnl_memory_desc* of) {
  if (made != to) copy(made, by, to, of);
}

void Plan::copy(dnnl_memory* from, const dnnl_memory_desc* of, dnnl_memory* to,
                const dnnl_memory_desc* by) {
  dnnl_primitive_desc* made = nullptr;
  const OwnedAttributes with = attributes();
  check(dnnl_reorder_primitive_desc_create(&made, of, engine(), by, engine(), with.get()), "reorder");
  const OwnedDescription description(made);
  add(made, {{SRC, from}, {DST, to}});
}

void Plan::add(const dnnl_primitive_desc* description, std::vector<dnnl_exec_arg_t> arguments) {
  dnnl_primitive* made = nullptr;
  check(dnnl_primitive_create(&made, description), "primitive");
  steps_.push_back({Owned<dnnl_primitive, dnnl_primitive_destroy>(made), std::move(arguments)});
  const dnnl_memory_desc* scratchpad = dnnl_primitive_desc_query_md(description, QUERY_SCRATCHPAD, 0);
  if (!scratchpad || !dnnl_memory_desc_get_size(scratchpad)) return;
  const size_t before = mark();
  steps_.back().arguments.push_back({SCRATCHPAD, between(scratchpad)});
  release(before);
}

void Plan::run(const std::vector<void*>& tensors) {
  char* const start = scratch(most_);
  for (const Place& place : places_) {
    void* const data = place.given ? tensors[place.at] : start + place.at;
    check(dnnl_memory_set_data_handle(place.memory.get(), data), "memory");
  }
  dnnl_stream* const stream = of_thread().stream.get();
  for (const Step& step : steps_)
    check(dnnl_primitive_execute(step.primitive.get(), stream, static_cast<int>(step.arguments.size()),
                                 step.arguments.data()),
          "execution");
  check(dnnl_stream_wait(stream), "execution");
}

}  // namespace nextvit::dnnl
