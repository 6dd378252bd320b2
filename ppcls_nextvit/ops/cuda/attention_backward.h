// The steps of aggregated attention's backward pass for a GPU, in this order; see attention.h.
#pragma once

#include "attention.h"

namespace nextvit_cuda {

template <class T>
struct AttentionStep {
  using A = computed<T>;
  using Channels = Row<A>;
  Attention<T> of;
  AttentionGradients<T> grads;
  AttentionWorkspace<A> kept;

  // Of an image, a head and a query in the arrays of the workspace.
  BOTH int64_t row(int64_t image, int64_t head, int64_t token) const {
    return (image * of.heads + head) * of.n() + token;
  }

  BOTH Channels grad_of(const Query<T>& query) const {
    return {query.at(grads.out, 1, 0, query.token), of.dim};
  }

  // The weight of a pooled key, and the gradient of its score.
  BOTH A pooled_weight(const Query<T>& query, const Channels& grad, int64_t p, A* score_grad) const {
    const A* const own = kept.statistics + 3 * row(query.image, query.head, query.token);
    const A score = query.scaled.dot(query.pooled_key(p)) + query.position_bias(p);
    const A weight = exponential(score - own[0]);
    *score_grad = weight * (grad.dot(query.pooled_value(p)) - own[1]);
    return weight;
  }
};

// Of every query: its gradient, and what the other steps need.
template <class T>
struct QueriesBackward : AttentionStep<T> {
  using A = computed<T>;
  using Channels = Row<A>;
  using Own = Query<T>;

  BOTH void operator()(int64_t i) const {
    const int64_t n = this->of.n();
    const Own query(this->of, i / n / this->of.heads, i / n % this->of.heads, i % n);
    const Channels grad = this->grad_of(query);
    find_statistics(query, grad, this->kept.statistics + 3 * i);
    Channels scaled_grad, unit_grad;
    window(query, grad, i, &scaled_grad, &unit_grad);
    for (int64_t p = 0; p < this->of.pooled; ++p) {
      A score_grad;
      this->pooled_weight(query, grad, p, &score_grad);
      scaled_grad.add(query.pooled_key(p), score_grad);
    }
    scaled_grad.store(this->kept.scaled_grad + i * this->of.dim, this->of.dim);
    const A length = A(read(this->of.lengths[query.token]));
    unit_grad.add(scaled_grad, A(read(this->of.temperature[query.head])) * length);
    if (this->of.unit) unit_grad.normalise_backward(query.unit, query.scale);
    unit_grad.store(query.at(this->grads.q, 1, 0, query.token), this->of.dim);
  }

  BOTH void find_statistics(const Own& query, const Channels& grad, A* to) const {
    Softmax<A> softmax;
    A weight, mean = 0;
    for (int64_t z = 0; z < this->of.places(); ++z) {
      const int64_t neighbour = query.neighbour(z);
      if (neighbour < 0) continue;
      const A score = query.scaled.dot(query.key(neighbour)) + query.local_bias(z);
      mean *= softmax.take(score, &weight);
      mean += weight * grad.dot(query.value(neighbour));
    }
    for (int64_t p = 0; p < this->of.pooled; ++p) {
      const A score = query.scaled.dot(query.pooled_key(p)) + query.position_bias(p);
      mean *= softmax.take(score, &weight);
      mean += weight * grad.dot(query.pooled_value(p));
    }
    to[0] = softmax.most + logarithm(softmax.sum);
    to[1] = mean / softmax.sum;
    to[2] = query.scale;
  }

  BOTH void window(const Own& query, const Channels& grad, int64_t i, Channels* scaled_grad,
                   Channels* unit_grad) const {
    const A* const own = this->kept.statistics + 3 * i;
    for (int64_t z = 0; z < this->of.places(); ++z) {
      const int64_t neighbour = query.neighbour(z), at = i * this->of.places() + z;
      A value_grad = 0, score_grad = 0, weight = 0;
      if (neighbour >= 0) {
        const Channels key = query.key(neighbour);
        value_grad = grad.dot(query.value(neighbour));
        weight = exponential(query.scaled.dot(key) + query.local_bias(z) - own[0]);
        score_grad = weight * (value_grad - own[1]);
        weight += query.learnt(z);
        scaled_grad->add(key, score_grad);
        unit_grad->add(query.tokens(z), value_grad);
      }
      this->kept.near_scores[at] = score_grad;
      this->kept.near_values[at] = value_grad;
      this->kept.near[at] = weight;
    }
  }
};

// Of every key and value: what the queries around it give.
template <class T>
struct KeysBackward : AttentionStep<T> {
  using A = computed<T>;
  using Channels = Row<A>;

  BOTH void operator()(int64_t i) const {
    const int64_t n = this->of.n(), image = i / n / this->of.heads, head = i / n % this->of.heads;
    // only its place is asked for
    const Query<T> own(this->of, image, head, i % n);
    Channels key_grad, value_grad;
    for (int64_t z = 0; z < this->of.places(); ++z) {
      const int64_t token = own.neighbour(z);
      if (token < 0) continue;
      // this one is that query's neighbour at the place opposite
      const int64_t at =
          this->row(image, head, token) * this->of.places() + this->of.places() - 1 - z;
      const Query<T> query(this->of, image, head, token);
      key_grad.add(query.scaled, this->kept.near_scores[at]);
      value_grad.add(this->grad_of(query), this->kept.near[at]);
    }
    if (this->of.unit) {
      Channels key(own.at(this->of.kv, 2, 0, own.token), this->of.dim);
      const A scale = key.scale(true);
      key.multiply(scale);
      key_grad.normalise_backward(key, scale);
    }
    key_grad.store(own.at(this->grads.kv, 2, 0, own.token), this->of.dim);
    value_grad.store(own.at(this->grads.kv, 2, 1, own.token), this->of.dim);
  }
};

// Of every head, query and pooled key: a sum over the images.
template <class T>
struct PositionBiasBackward : AttentionStep<T> {
  using A = computed<T>;

  BOTH void operator()(int64_t i) const {
    const int64_t p = i % this->of.pooled, token = i / this->of.pooled % this->of.n();
    const int64_t head = i / this->of.pooled / this->of.n();
    A sum = 0;
    for (int64_t image = 0; image < this->of.batch; ++image) {
      const Query<T> query(this->of, image, head, token);
      A score_grad;
      this->pooled_weight(query, this->grad_of(query), p, &score_grad);
      sum += score_grad;
    }
    write(sum, this->grads.position_bias + i);
  }
};

// The chunk of `count` elements that has number `chunk` of `chunks`: first .. last.
struct Chunk {
  int64_t first, last;

  BOTH Chunk(int64_t count, int64_t chunk, int64_t chunks) {
    const int64_t size = (count + chunks - 1) / chunks;
    first = chunk * size < count ? chunk * size : count;
    last = first + size < count ? first + size : count;
  }
};

// Of every image, head, pooled key and chunk of the queries: the gradients of unit key and value.
template <class T>
struct PooledBackward : AttentionStep<T> {
  using A = computed<T>;

  BOTH void operator()(int64_t i) const {
    const int64_t chunk = i % this->kept.pooled_chunks, p = i / this->kept.pooled_chunks % this->of.pooled;
    const int64_t row = i / this->kept.pooled_chunks / this->of.pooled;
    const Chunk queries(this->of.n(), chunk, this->kept.pooled_chunks);
    Row<A> key_grad, value_grad;
    for (int64_t token = queries.first; token < queries.last; ++token) {
      const Query<T> query(this->of, row / this->of.heads, row % this->of.heads, token);
      const Row<A> grad = this->grad_of(query);
      A score_grad;
      const A weight = this->pooled_weight(query, grad, p, &score_grad);
      key_grad.add(query.scaled, score_grad);
      value_grad.add(grad, weight);
    }
    key_grad.store(this->kept.pooled_sums + 2 * i * this->of.dim, this->of.dim);
    value_grad.store(this->kept.pooled_sums + (2 * i + 1) * this->of.dim, this->of.dim);
  }
};

// Of every image, head and pooled key: the chunks' sums, in their order.
template <class T>
struct PooledSums : AttentionStep<T> {
  using A = computed<T>;
  using Channels = Row<A>;

  BOTH void operator()(int64_t i) const {
    const int64_t p = i % this->of.pooled, row = i / this->of.pooled;
    const int64_t image = row / this->of.heads, head = row % this->of.heads;
    Channels key_grad, value_grad;
    for (int64_t chunk = 0; chunk < this->kept.pooled_chunks; ++chunk) {
      const A* const sums =
          this->kept.pooled_sums + 2 * (i * this->kept.pooled_chunks + chunk) * this->of.dim;
      key_grad.add(Channels(sums, this->of.dim), 1);
      value_grad.add(Channels(sums + this->of.dim, this->of.dim), 1);
    }
    const int64_t at =
        (image * this->of.pooled + p) * 2 * this->of.channels() + head * this->of.dim;
    if (this->of.unit) {
      Channels key(this->of.pooled_kv + at, this->of.dim);
      const A scale = key.scale(true);
      key.multiply(scale);
      key_grad.normalise_backward(key, scale);
    }
    key_grad.store(this->grads.pooled_kv + at, this->of.dim);
    value_grad.store(this->grads.pooled_kv + at + this->of.channels(), this->of.dim);
  }
};

// What of a head's parameters is summed: embedding [dim], temperature, local bias [places], token
// bias [places], tokens [dim, places], in this order.
BOTH int64_t items_of(int64_t dim, int64_t places) { return dim + 1 + 2 * places + dim * places; }

// Of every head, item and chunk of all images' queries.
template <class T>
struct ParametersBackward : AttentionStep<T> {
  using A = computed<T>;

  BOTH void operator()(int64_t i) const {
    const int64_t items = items_of(this->of.dim, this->of.places());
    const int64_t chunk = i % this->kept.chunks, item = i / this->kept.chunks % items;
    const int64_t head = i / this->kept.chunks / items;
    const Chunk queries(this->of.batch * this->of.n(), chunk, this->kept.chunks);
    A sum = 0;
    for (int64_t at = queries.first; at < queries.last; ++at)
      sum += share(head, item, at / this->of.n(), at % this->of.n());
    this->kept.sums[i] = sum;
  }

  BOTH A share(int64_t head, int64_t item, int64_t image, int64_t token) const {
    const int64_t dim = this->of.dim, places = this->of.places();
    const int64_t row = this->row(image, head, token);
    if (item < dim) return of_embedding(head, item, row, token);
    item -= dim + 1;
    if (item < 0) return of_temperature(head, image, row, token);
    if (item < places) return this->kept.near_scores[row * places + item];
    item -= places;
    if (item < places) return this->kept.near_values[row * places + item];
    item -= places;
    const int64_t d = item / places, z = item % places;
    return unit(head, image, row, token, d) * this->kept.near_values[row * places + z];
  }

  BOTH A unit(int64_t head, int64_t image, int64_t row, int64_t token, int64_t d) const {
    const int64_t at = (image * this->of.n() + token) * this->of.channels() + head * this->of.dim + d;
    return A(read(this->of.q[at])) * this->kept.statistics[3 * row + 2];
  }

  BOTH A of_embedding(int64_t head, int64_t d, int64_t row, int64_t token) const {
    const A factor = A(read(this->of.temperature[head])) * A(read(this->of.lengths[token]));
    return this->kept.scaled_grad[row * this->of.dim + d] * factor;
  }

  BOTH A of_temperature(int64_t head, int64_t image, int64_t row, int64_t token) const {
    A sum = 0;
    for (int64_t d = 0; d < this->of.dim; ++d) {
      const A embedding = A(read(this->of.embedding[head * this->of.dim + d]));
      sum += this->kept.scaled_grad[row * this->of.dim + d] *
             (unit(head, image, row, token, d) + embedding);
    }
    return sum * A(read(this->of.lengths[token]));
  }
};

// Of every head and item: the chunks' sums, in their order, to the parameter.
template <class T>
struct ParameterSums : AttentionStep<T> {
  using A = computed<T>;

  BOTH void operator()(int64_t i) const {
    const int64_t dim = this->of.dim, places = this->of.places(), items = items_of(dim, places);
    const int64_t head = i / items, item = i % items;
    A sum = 0;
    for (int64_t chunk = 0; chunk < this->kept.chunks; ++chunk)
      sum += this->kept.sums[i * this->kept.chunks + chunk];
    write(sum, place(head, item, dim, places));
  }

  BOTH T* place(int64_t head, int64_t item, int64_t dim, int64_t places) const {
    if (item < dim) return this->grads.embedding + head * dim + item;
    item -= dim + 1;
    if (item < 0) return this->grads.temperature + head;
    if (item < places) return this->grads.local_bias + head * places + item;
    item -= places;
    if (item < places) return this->grads.token_bias + head * places + item;
    return this->grads.tokens + head * dim * places + item - places;
  }
};

}  // namespace nextvit_cuda
