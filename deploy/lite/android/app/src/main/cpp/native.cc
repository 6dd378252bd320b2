// org.nextvit.demo.Native: deploy/cpp's pre- and post-processing for Kotlin.
#include <jni.h>

#include <algorithm>
#include <string>
#include <vector>

#include "postprocess.h"
#include "preprocess.h"

namespace {

std::vector<jint> ints(JNIEnv* env, jintArray array) {
  std::vector<jint> values(env->GetArrayLength(array));
  env->GetIntArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return values;
}

std::vector<jfloat> floats(JNIEnv* env, jfloatArray array) {
  std::vector<jfloat> values(env->GetArrayLength(array));
  env->GetFloatArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return values;
}

jfloatArray to_java(JNIEnv* env, const std::vector<float>& values) {
  jfloatArray array = env->NewFloatArray(static_cast<jsize>(values.size()));
  if (array) env->SetFloatArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return array;
}

std::string text(JNIEnv* env, jobjectArray array, jsize index) {
  const auto string = static_cast<jstring>(env->GetObjectArrayElement(array, index));
  const char* characters = env->GetStringUTFChars(string, nullptr);
  std::string result = characters;
  env->ReleaseStringUTFChars(string, characters);
  return result;
}

}  // namespace

extern "C" {

// See Native.kt.
JNIEXPORT jfloatArray JNICALL Java_org_nextvit_demo_Native_preprocess(JNIEnv* env, jobject, jintArray argb, jint width, jint height,
                                                                      jobjectArray steps, jintArray sizes, jint min_size, jint pillow_major,
                                                                      jint pillow_minor, jfloat scale, jfloatArray mean, jfloatArray std,
                                                                      jintArray result_size) {
  try {
    nextvit::Image image(width, height);
    const std::vector<jint> pixels = ints(env, argb), size = ints(env, sizes);
    for (size_t i = 0; i < pixels.size(); ++i) {
      for (int c = 0; c < 3; ++c) image.pixels[3 * i + c] = static_cast<uint8_t>(pixels[i] >> (16 - 8 * c));
    }
    nextvit::Preprocess preprocess;
    preprocess.min_size = min_size;
    for (jsize i = 0; i < env->GetArrayLength(steps); ++i) {
      const std::string step = text(env, steps, i);
      const int w = size[2 * i], h = size[2 * i + 1];
      if (step == "bgr") {
        preprocess.steps.push_back(nextvit::swap_red_and_blue);
      } else if (step == "crop") {
        preprocess.steps.push_back([=](const nextvit::Image& image) { return nextvit::center_crop(image, w, h); });
      } else {
        preprocess.steps.push_back([=](const nextvit::Image& image) {
          const auto [to_width, to_height] = h ? std::array<int, 2>{w, h} : nextvit::short_side_size(image, w);
          return nextvit::resize(image, to_width, to_height, step, {pillow_major, pillow_minor});
        });
      }
    }
    const std::vector<jfloat> means = floats(env, mean), stds = floats(env, std);
    preprocess.normalization.scale = scale;
    std::copy_n(means.begin(), 3, preprocess.normalization.mean.begin());
    std::copy_n(stds.begin(), 3, preprocess.normalization.std.begin());
    const nextvit::Input input = preprocess(std::move(image));
    const jint result[] = {input.height, input.width};
    env->SetIntArrayRegion(result_size, 0, 2, result);
    return to_java(env, input.values);
  } catch (const std::exception& error) {
    env->ThrowNew(env->FindClass("java/lang/IllegalArgumentException"), error.what());
    return nullptr;
  }
}

JNIEXPORT jfloatArray JNICALL Java_org_nextvit_demo_Native_softmax(JNIEnv* env, jobject, jfloatArray logits) {
  return to_java(env, nextvit::softmax(floats(env, logits)));
}

JNIEXPORT jintArray JNICALL Java_org_nextvit_demo_Native_topK(JNIEnv* env, jobject, jfloatArray scores, jint k) {
  const std::vector<int> order = nextvit::top_k(floats(env, scores), k);
  jintArray array = env->NewIntArray(static_cast<jsize>(order.size()));
  if (array) env->SetIntArrayRegion(array, 0, static_cast<jsize>(order.size()), order.data());
  return array;
}
}
