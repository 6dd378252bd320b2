// swift-tools-version: 5.8
import AppleProductTypes
import PackageDescription

let package = Package(
    name: "NextViT",
    platforms: [.iOS("16.0")],
    products: [
        .iOSApplication(
            name: "NextViT",
            targets: ["App"],
            bundleIdentifier: "org.nextvit.demo",
            displayVersion: "1.0",
            bundleVersion: "1",
            appIcon: .placeholder(icon: .camera),
            accentColor: .presetColor(.blue),
            supportedDeviceFamilies: [.pad, .phone],
            supportedInterfaceOrientations: [.portrait, .landscapeLeft, .landscapeRight],
            capabilities: [.camera(purposeString: "To classify what the camera sees. Pictures stay on this device.")]
        )
    ],
    targets: [.executableTarget(name: "App", path: ".", resources: [.copy("Model")])]
)
