import CoreML
import UIKit

/// A class and its probability.
struct Prediction: Identifiable {
    let label: String
    let probability: Double
    var id: String { label }
}

enum ClassifierError: LocalizedError {
    case noModel, notAClassifier, recipe(String), pixels

    var errorDescription: String? {
        switch self {
        case .noModel: return "No model. Copy inference.mlpackage and export.json into NextViT.swiftpm/Model, then build again."
        case .notAClassifier: return "This package gives no probabilities. Export it with Arch.infer_add_softmax=True."
        case .recipe(let step): return "export.json: this app does not know \(step)."
        case .pixels: return "This picture cannot be drawn."
        }
    }
}

/// The folder `Model`, as tools/export_model.py --to coreml wrote it: pictures in, classes out.
actor Classifier {
    private let model: MLModel
    private let recipe: Recipe
    private let input: String
    private let output: String

    init() async throws {
        guard let folder = Bundle.main.url(forResource: "Model", withExtension: nil) ?? Bundle.module.url(forResource: "Model", withExtension: nil),
              let description = try? Data(contentsOf: folder.appendingPathComponent("export.json"))
        else { throw ClassifierError.noModel }
        recipe = try Recipe(description)
        let compiled = try await MLModel.compileModel(at: folder.appendingPathComponent("inference.mlpackage"))
        defer { try? FileManager.default.removeItem(at: compiled) }
        model = try MLModel(contentsOf: compiled)
        guard let probabilities = model.modelDescription.predictedProbabilitiesName,
              let name = model.modelDescription.inputDescriptionsByName.keys.first
        else { throw ClassifierError.notAClassifier }
        input = name
        output = probabilities
    }

    /// The `count` most probable classes of `picture`, best first.
    func best(_ count: Int, of picture: UIImage) throws -> [Prediction] {
        let pixels = MLFeatureValue(pixelBuffer: try recipe.pixels(of: picture))
        let result = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: [input: pixels]))
        let scores = result.featureValue(for: output)?.dictionaryValue ?? [:]
        return scores.map { Prediction(label: "\($0.key)", probability: $0.value.doubleValue) }
            .sorted { $0.probability > $1.probability }
            .prefix(count).map { $0 }
    }
}

/// How evaluation cuts pictures, from export.json. Normalisation is in the package.
struct Recipe {
    private enum Step {
        case short(CGFloat)
        case size(CGSize)
        case crop(CGSize)
    }

    private var steps: [Step] = []

    init(_ description: Data) throws {
        let root = try JSONSerialization.jsonObject(with: description) as? [String: Any]
        let transforms = (root?["PreProcess"] as? [String: Any])?["transform_ops"] as? [[String: Any]]
        guard let transforms else { throw ClassifierError.noModel }
        for (name, value) in transforms.flatMap({ $0 }) {
            let arguments = value as? [String: Any] ?? [:]
            switch name {
            case "ResizeImage":
                if let short = Recipe.size(arguments["resize_short"]) {
                    steps.append(.short(short.width))
                } else if let size = Recipe.size(arguments["size"]) {
                    steps.append(.size(size))
                }
            case "CropImage":
                if let size = Recipe.size(arguments["size"]) { steps.append(.crop(size)) }
            case "DecodeImage", "NormalizeImage", "ToCHWImage": break
            default: throw ClassifierError.recipe(name)
            }
        }
    }

    /// A number is a square; a list is [width, height].
    private static func size(_ value: Any?) -> CGSize? {
        if let side = value as? Double { return CGSize(width: side, height: side) }
        if let sides = value as? [Double], sides.count == 2 { return CGSize(width: sides[0], height: sides[1]) }
        return nil
    }

    /// The canvas, and where on it the whole picture of `size` is drawn.
    func layout(of size: CGSize) -> (canvas: CGSize, picture: CGRect) {
        var canvas = size
        var picture = CGRect(origin: .zero, size: size)
        for step in steps {
            switch step {
            case .short(let short):
                let resized = canvas.width <= canvas.height
                    ? CGSize(width: short, height: (short * canvas.height / canvas.width).rounded(.down))
                    : CGSize(width: (short * canvas.width / canvas.height).rounded(.down), height: short)
                picture = picture.scaled(from: canvas, to: resized)
                canvas = resized
            case .size(let resized):
                picture = picture.scaled(from: canvas, to: resized)
                canvas = resized
            case .crop(let cut):
                picture.origin.x -= ((canvas.width - cut.width) / 2).rounded(.toNearestOrEven)
                picture.origin.y -= ((canvas.height - cut.height) / 2).rounded(.toNearestOrEven)
                canvas = cut
            }
        }
        return (canvas, picture)
    }

    /// `picture`, upright, as the package takes it.
    func pixels(of picture: UIImage) throws -> CVPixelBuffer {
        let (canvas, place) = layout(of: CGSize(width: picture.size.width * picture.scale, height: picture.size.height * picture.scale))
        let compatible = [kCVPixelBufferCGImageCompatibilityKey: true, kCVPixelBufferCGBitmapContextCompatibilityKey: true] as CFDictionary
        var created: CVPixelBuffer?
        CVPixelBufferCreate(nil, Int(canvas.width), Int(canvas.height), kCVPixelFormatType_32BGRA, compatible, &created)
        guard let buffer = created, let colors = CGColorSpace(name: CGColorSpace.sRGB) else { throw ClassifierError.pixels }
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let context = CGContext(
            data: CVPixelBufferGetBaseAddress(buffer), width: Int(canvas.width), height: Int(canvas.height), bitsPerComponent: 8,
            bytesPerRow: CVPixelBufferGetBytesPerRow(buffer), space: colors,
            bitmapInfo: CGImageAlphaInfo.noneSkipFirst.rawValue | CGBitmapInfo.byteOrder32Little.rawValue)
        else { throw ClassifierError.pixels }
        context.setFillColor(red: 0, green: 0, blue: 0, alpha: 1)
        context.fill(CGRect(origin: .zero, size: canvas))
        context.interpolationQuality = .high
        context.translateBy(x: 0, y: canvas.height)                 // UIKit's origin is at the top
        context.scaleBy(x: 1, y: -1)
        UIGraphicsPushContext(context)
        picture.draw(in: place)                                     // turns it as its orientation says
        UIGraphicsPopContext()
        return buffer
    }
}

private extension CGRect {
    func scaled(from old: CGSize, to new: CGSize) -> CGRect {
        let x = new.width / old.width, y = new.height / old.height
        return CGRect(x: minX * x, y: minY * y, width: width * x, height: height * y)
    }
}
