plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.nextvit.demo"
    compileSdk = 34
    defaultConfig {
        applicationId = "org.nextvit.demo"
        minSdk = 24
        targetSdk = 34
        versionCode = 1
        versionName = "1.0"
        ndk { abiFilters += "arm64-v8a" }
    }
    externalNativeBuild {
        cmake { path = file("src/main/cpp/CMakeLists.txt") }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
    androidResources { noCompress += "nb" }
}

dependencies {
    implementation(files("libs/PaddlePredictor.jar"))
}

tasks.named("preBuild") {
    doFirst {
        for (path in listOf("libs/PaddlePredictor.jar", "src/main/jniLibs/arm64-v8a/libpaddle_lite_jni.so", "src/main/assets/inference.nb",
                            "src/main/assets/export.json")) {
            require(file(path).isFile) { "app/$path is missing: README.md says where it comes from" }
        }
    }
}
