// Aggregated attention of TransNeXt for a GPU; ../src/attention.h has the formula and the arrays. A
// thread has a query, a key or a sum of its own and shares nothing with others, so that the same
// inputs give the same bits.
#pragma once

#include "grid.h"

namespace nextvit_cuda {

constexpr int CAPACITY = 24;  // channels of a head, at most: TransNeXt's

template <class T>
struct Attention {
  int64_t batch, heads, dim, height, width, pooled;
  int window;
  bool unit;
  const T *q, *kv, *pooled_kv, *embedding, *temperature, *lengths;
  const T *local_bias, *position_bias, *tokens, *token_bias;

  BOTH int64_t n() const { return height * width; }
  BOTH int64_t channels() const { return heads * dim; }
  BOTH int64_t places() const { return int64_t(window) * window; }
};

template <class T>
struct AttentionGradients {
  const T* out;
  T *q, *kv, *pooled_kv, *embedding, *temperature;
  T *local_bias, *position_bias, *tokens, *token_bias;
};

// What the steps of a backward pass leave to each other. [image, head, query, ...] but for the sums.
template <class A>
struct AttentionWorkspace {
  A* statistics;   // [.., 3]: log of the softmax's sum, mean of its gradients, scale of the query
  A* scaled_grad;  // [.., dim]: gradient of the scaled query
  A* near_scores;  // [.., places]: gradients of the window's scores
  A* near_values;  // [.., places]: gradients of the window's weights
  A* near;         // [.., places]: the window's weights, the learnt share included
  A* pooled_sums;  // [image, head, pooled key, chunk, 2, dim]
  A* sums;         // [head, item, chunk]: see Items
  int64_t pooled_chunks, chunks;
};

BOTH float exponential(float x) { return expf(x); }
BOTH double exponential(double x) { return exp(x); }
BOTH float logarithm(float x) { return logf(x); }
BOTH double logarithm(double x) { return log(x); }
BOTH float root(float x) { return sqrtf(x); }
BOTH double root(double x) { return sqrt(x); }

// A head's channels of one token; those past the last one are zeros.
template <class A>
struct Row {
  A at[CAPACITY];

  BOTH Row() {
    for (int d = 0; d < CAPACITY; ++d) at[d] = 0;
  }

  template <class T>
  BOTH Row(const T* from, int64_t dim, int64_t stride = 1) {
    for (int d = 0; d < CAPACITY; ++d) at[d] = d < dim ? A(read(from[d * stride])) : A(0);
  }

  BOTH A dot(const Row& other) const {
    A sum = 0;
    for (int d = 0; d < CAPACITY; ++d) sum += at[d] * other.at[d];
    return sum;
  }

  BOTH void add(const Row& other, A share) {
    for (int d = 0; d < CAPACITY; ++d) at[d] += other.at[d] * share;
  }

  BOTH void multiply(A factor) {
    for (int d = 0; d < CAPACITY; ++d) at[d] *= factor;
  }

  template <class T>
  BOTH void store(T* to, int64_t dim) const {
    for (int d = 0; d < CAPACITY; ++d)
      if (d < dim) write(at[d], to + d);
  }

  // What makes it a unit vector; a length below 1e-12 counts as that.
  BOTH A scale(bool unit) const {
    const A square = dot(*this);
    return unit ? A(1) / root(square < A(1e-24) ? A(1e-24) : square) : A(1);
  }

  // Of the vector whose unit vector is `own`: from the gradient of that. One that counted as longer
  // than it is was only multiplied.
  BOTH void normalise_backward(const Row& own, A scale) {
    const A along = scale < A(0.999e12) ? dot(own) : A(0);
    add(own, -along);
    multiply(scale);
  }
};

// A query's place and what it is compared with.
template <class T>
struct Query {
  using A = computed<T>;
  using Channels = Row<A>;
  const Attention<T>& of;
  int64_t image, head, token;
  A scale;
  Channels unit, scaled;

  BOTH Query(const Attention<T>& of_, int64_t image_, int64_t head_, int64_t token_)
      : of(of_), image(image_), head(head_), token(token_), unit(at(of_.q, 1, 0, token_), of_.dim) {
    scale = unit.scale(of.unit);
    unit.multiply(scale);
    scaled = unit;
    scaled.add(Channels(of.embedding + head * of.dim, of.dim), 1);
    scaled.multiply(A(read(of.temperature[head])) * A(read(of.lengths[token])));
  }

  // Of [batch, N, parts * C], this image's and head's.
  template <class Pointer>
  BOTH Pointer at(Pointer data, int64_t parts, int64_t part, int64_t of_token) const {
    return data + ((image * of.n() + of_token) * parts + part) * of.channels() + head * of.dim;
  }

  template <class Pointer>
  BOTH Pointer pooled_at(Pointer data, int64_t part, int64_t key) const {
    return data + ((image * of.pooled + key) * 2 + part) * of.channels() + head * of.dim;
  }

  // The neighbour at place z of the window; -1: outside the map.
  BOTH int64_t neighbour(int64_t z) const {
    const int64_t row = token / of.width + z / of.window - of.window / 2;
    const int64_t column = token % of.width + z % of.window - of.window / 2;
    const bool inside = row >= 0 && row < of.height && column >= 0 && column < of.width;
    return inside ? row * of.width + column : -1;
  }

  BOTH Channels key(int64_t neighbour) const { return made_unit(at(of.kv, 2, 0, neighbour)); }
  BOTH Channels value(int64_t neighbour) const { return {at(of.kv, 2, 1, neighbour), of.dim}; }
  BOTH Channels pooled_key(int64_t p) const { return made_unit(pooled_at(of.pooled_kv, 0, p)); }
  BOTH Channels pooled_value(int64_t p) const { return {pooled_at(of.pooled_kv, 1, p), of.dim}; }

  BOTH Channels made_unit(const T* from) const {
    Channels row(from, of.dim);
    row.multiply(row.scale(of.unit));
    return row;
  }

  BOTH A local_bias(int64_t z) const { return A(read(of.local_bias[head * of.places() + z])); }
  BOTH A position_bias(int64_t p) const {
    return A(read(of.position_bias[(head * of.n() + token) * of.pooled + p]));
  }

  BOTH Channels tokens(int64_t z) const {
    return {of.tokens + head * of.dim * of.places() + z, of.dim, of.places()};
  }

  // The share of place z that depends on the query alone.
  BOTH A learnt(int64_t z) const {
    return unit.dot(tokens(z)) + A(read(of.token_bias[head * of.places() + z]));
  }
};

// The sum of a softmax's terms, taken one by one, and of what they weigh, in proportion to e^most.
template <class A>
struct Softmax {
  A most = A(-INFINITY), sum = 0;

  // What the sums so far are multiplied by, before a term of `weight` is added.
  BOTH A take(A score, A* weight) {
    const A greater = score > most ? score : most;
    const A kept = most == A(-INFINITY) ? A(0) : exponential(most - greater);
    *weight = exponential(score - greater);
    most = greater;
    sum = sum * kept + *weight;
    return kept;
  }
};

template <class T>
struct AttentionForward {
  using A = computed<T>;
  Attention<T> of;
  T* out;

  BOTH void operator()(int64_t i) const {
    const int64_t n = of.n();
    const Query<T> query(of, i / n / of.heads, i / n % of.heads, i % n);
    Row<A> weighed, learnt;
    Softmax<A> softmax;
    A weight;
    for (int64_t z = 0; z < of.places(); ++z) {
      const int64_t neighbour = query.neighbour(z);
      if (neighbour < 0) continue;
      const Row<A> value = query.value(neighbour);
      const A score = query.scaled.dot(query.key(neighbour)) + query.local_bias(z);
      weighed.multiply(softmax.take(score, &weight));
      weighed.add(value, weight);
      learnt.add(value, query.learnt(z));
    }
    for (int64_t p = 0; p < of.pooled; ++p) {
      const A score = query.scaled.dot(query.pooled_key(p)) + query.position_bias(p);
      weighed.multiply(softmax.take(score, &weight));
      weighed.add(query.pooled_value(p), weight);
    }
    learnt.add(weighed, A(1) / softmax.sum);
    learnt.store(query.at(out, 1, 0, query.token), of.dim);
  }
};

}  // namespace nextvit_cuda
