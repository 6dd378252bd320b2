// A sequence of oneDNN primitives, made once for a shape and then run: with the changes of layout
// before and after them, and where in the thread's scratch memory what lies between them is.
#pragma once

#include <array>
#include <list>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "interface.h"

namespace nextvit::dnnl {

template <class T, int (*destroy)(T*)>
struct Destroy {
  void operator()(T* object) const { destroy(object); }
};
template <class T, int (*destroy)(T*)>
using Owned = std::unique_ptr<T, Destroy<T, destroy>>;

using OwnedLayout = Owned<dnnl_memory_desc, dnnl_memory_desc_destroy>;
using OwnedDescription = Owned<dnnl_primitive_desc, dnnl_primitive_desc_destroy>;
using OwnedAttributes = Owned<dnnl_primitive_attr, dnnl_primitive_attr_destroy>;

// std::runtime_error, with the library's word, for a status that is not success.
void check(int status, const char* what);

// This thread's engine.
dnnl_engine* engine();

OwnedLayout layout(const std::vector<int64_t>& sizes, Type type, Tag tag);

// The same with the distance between neighbours along each axis.
OwnedLayout strided(const std::vector<int64_t>& sizes, Type type, const std::vector<int64_t>& strides);

// What a primitive does with its result: adds it to what is in its output; writes no less than 0.
struct After {
  bool adds = false, relu = false;
};

// Attributes of a primitive whose scratch memory is the plan's.
OwnedAttributes attributes(After after = {});

class Plan {
 public:
  // The tensor at `place` of run's arguments, in a layout.
  dnnl_memory* given(size_t place, const dnnl_memory_desc* of);

  // Memory within the scratch memory.
  dnnl_memory* between(const dnnl_memory_desc* of);

  // `from` in the layout `to`: itself, or a copy in the scratch memory.
  dnnl_memory* in_layout(dnnl_memory* from, const dnnl_memory_desc* of, const dnnl_memory_desc* to);

  // Where a primitive writes what becomes `to`; see also `written`.
  dnnl_memory* output(dnnl_memory* to, const dnnl_memory_desc* of, const dnnl_memory_desc* by);

  void add(const dnnl_primitive_desc* description, std::vector<dnnl_exec_arg_t> arguments);

  // After the primitive: `made`, which `output` gave, becomes `to`.
  void written(dnnl_memory* made, const dnnl_memory_desc* by, dnnl_memory* to, const dnnl_memory_desc* of);

  // What of the scratch memory is used, and giving back all above a mark.
  size_t mark() const { return used_; }
  void release(size_t mark) { used_ = mark; }

  void run(const std::vector<void*>& tensors);

 private:
  using OwnedMemory = Owned<dnnl_memory, dnnl_memory_destroy>;
  struct Step {
    Owned<dnnl_primitive, dnnl_primitive_destroy> primitive;
    std::vector<dnnl_exec_arg_t> arguments;
  };
  struct Place {
    OwnedMemory memory;
    bool given;
    size_t at;  // of the tensors, or bytes into the scratch memory
  };

  dnnl_memory* place(const dnnl_memory_desc* of, bool given, size_t at);
  void copy(dnnl_memory* from, const dnnl_memory_desc* of, dnnl_memory* to, const dnnl_memory_desc* by);

  std::vector<Step> steps_;
  std::vector<Place> places_;
  size_t used_ = 0, most_ = 0;
};

// What is computed, as a key: the shape, which results, the number of threads.
using Key = std::array<int64_t, 18>;

// The plans of a thread, the one that was used longest ago leaves.
class Plans {
 public:
  template <class Make>
  Plan& at(const Key& key, const Make& make) {
    const auto found = places_.find(key);
    if (found != places_.end()) {
      plans_.splice(plans_.begin(), plans_, found->second);
      return plans_.front().second;
    }
    plans_.emplace_front(key, make());
    places_[key] = plans_.begin();
    if (plans_.size() > MOST_PLANS) {
      places_.erase(plans_.back().first);
      plans_.pop_back();
    }
    return plans_.front().second;
  }

 private:
  static constexpr size_t MOST_PLANS = 1024;  // a network has about a hundred for a size
  using List = std::list<std::pair<Key, Plan>>;
  List plans_;
  std::map<Key, List::iterator> places_;
};

// This thread's plans, of the library that interface.h declares.
Plans& plans();

// Tensors that are read are not written to; oneDNN's memory makes no difference.
inline void* read(const float* tensor) { return const_cast<float*>(tensor); }

}  // namespace nextvit::dnnl
