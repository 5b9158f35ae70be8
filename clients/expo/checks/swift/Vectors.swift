// Opens the vectors of docs/encryption.md with the extension's own code; ends with an error where one does not open.

import CryptoKit
import Foundation

@main
enum Vectors {
  static func main() throws {
    let document = try String(contentsOfFile: CommandLine.arguments[1], encoding: .utf8)
    let blocks = document.components(separatedBy: "```text\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
    let vectors = blocks.filter { $0.hasPrefix("private key") }.map(fields)
    expect(vectors.count >= 2, "docs/encryption.md has vectors")
    for vector in vectors {
      let key = try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: bytes(vector["private key"]!))
      expect(key.publicKey.rawRepresentation.base64EncodedString() == vector["public_key"], "the public key is its own")
      let push: [AnyHashable: Any] = ["task_id": vector["task_id"]!, "kind": vector["kind"]!, "sealed": vector["sealed"]!]
      let expected = try JSONDecoder().decode(SealedText.self, from: Data(vector["plaintext"]!.utf8))
      let text = try openSealed(push, with: key)
      expect(text.title == expected.title && text.body == expected.body, "it opens to its text")
      for other in [push.merging(["kind": "message"]) { $1 }, push.merging(["task_id": "another"]) { $1 }] {
        expect((try? openSealed(other, with: key)) == nil, "it opens for no other push")
      }
      expect((try? openSealed(push, with: Curve25519.KeyAgreement.PrivateKey())) == nil, "it opens for no other key")
      for broken in [push.merging(["sealed": "AAAA"]) { $1 }, push.merging(["sealed": "?"]) { $1 }, [:]] {
        expect((try? openSealed(broken, with: key)) == nil, "what is no sealed text does not open")
      }
      expect((try? openSealed(push, with: nil)) == nil, "nothing opens without a key")
    }
    print("\(vectors.count) vectors opened by the extension's code")
  }

  static func fields(_ block: String) -> [String: String] {
    var found: [String: String] = [:]
    for line in block.split(separator: "\n") {
      if let gap = line.range(of: "  ") {
        found[String(line[..<gap.lowerBound])] = line[gap.upperBound...].trimmingCharacters(in: .whitespaces)
      }
    }
    return found
  }

  static func bytes(_ hexadecimal: String) -> Data {
    let digits = Array(hexadecimal)
    return Data(stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...($0 + 1)]), radix: 16)! })
  }

  static func expect(_ holds: Bool, _ what: String) {
    if !holds {
      FileHandle.standardError.write(Data("not so: \(what)\n".utf8))
      exit(1)
    }
  }
}
