import PhotosUI
import SwiftUI

@main
struct NextViTApp: App {
    var body: some Scene {
        WindowGroup { ContentView() }
    }
}

/// A picture from the library or the camera, and its best classes.
@MainActor
struct ContentView: View {
    @State private var classifier: Classifier?
    @State private var item: PhotosPickerItem?
    @State private var picture: UIImage?
    @State private var predictions: [Prediction] = []
    @State private var message = "Loading the model ..."
    @State private var showsCamera = false

    var body: some View {
        NavigationStack {
            List {
                if let picture {
                    Image(uiImage: picture).resizable().scaledToFit().frame(maxHeight: 320).accessibilityLabel("The picture")
                }
                if !message.isEmpty {
                    Text(message).foregroundStyle(.secondary)
                }
                ForEach(predictions) { prediction in
                    ProgressView(value: prediction.probability) {
                        HStack {
                            Text(prediction.label)
                            Spacer()
                            Text(prediction.probability, format: .percent.precision(.fractionLength(1))).monospacedDigit()
                        }
                    }
                }
            }
            .navigationTitle("Next-ViT")
            .toolbar {
                ToolbarItemGroup(placement: .bottomBar) {
                    PhotosPicker(selection: $item, matching: .images) { Label("Photos", systemImage: "photo") }
                    Spacer()
                    Button { showsCamera = true } label: { Label("Camera", systemImage: "camera") }
                        .disabled(!UIImagePickerController.isSourceTypeAvailable(.camera))
                }
            }
        }
        .task { await load() }
        .onChange(of: item) { chosen in
            Task { await show(chosen) }
        }
        .fullScreenCover(isPresented: $showsCamera) {
            Camera { taken in
                Task { await classify(taken) }
            }
            .ignoresSafeArea()
        }
    }

    private func load() async {
        do {
            classifier = try await Classifier()
            message = "Choose a photo, or take one."
        } catch {
            message = error.localizedDescription
        }
    }

    private func show(_ chosen: PhotosPickerItem?) async {
        guard let chosen else { return }
        guard let data = try? await chosen.loadTransferable(type: Data.self), let image = UIImage(data: data) else {
            message = "This photo cannot be read."
            return
        }
        await classify(image)
    }

    private func classify(_ image: UIImage) async {
        picture = image
        predictions = []
        guard let classifier else { return }
        do {
            predictions = try await classifier.best(5, of: image)
            message = ""
        } catch {
            message = error.localizedDescription
        }
    }
}

/// The system's camera.
struct Camera: UIViewControllerRepresentable {
    let taken: (UIImage) -> Void
    @Environment(\.dismiss) private var dismiss

    func makeUIViewController(context: Context) -> UIImagePickerController {
        let controller = UIImagePickerController()
        controller.sourceType = .camera
        controller.delegate = context.coordinator
        return controller
    }

    func updateUIViewController(_ controller: UIImagePickerController, context: Context) {}

    func makeCoordinator() -> Coordinator { Coordinator(self) }

    final class Coordinator: NSObject, UIImagePickerControllerDelegate, UINavigationControllerDelegate {
        let camera: Camera

        init(_ camera: Camera) { self.camera = camera }

        func imagePickerController(_ picker: UIImagePickerController,
                                   didFinishPickingMediaWithInfo info: [UIImagePickerController.InfoKey: Any]) {
            if let image = info[.originalImage] as? UIImage {
                camera.taken(image)
            }
            camera.dismiss()
        }

        func imagePickerControllerDidCancel(_ picker: UIImagePickerController) { camera.dismiss() }
    }
}
