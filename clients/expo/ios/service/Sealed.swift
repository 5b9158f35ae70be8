// Opens a sealed text, as docs/encryption.md says: HPKE, base mode, bound to its push.

import CryptoKit
import Foundation

struct SealedText: Decodable {
  let title: String
  let body: String
}

enum Unsealable: Error {
  case incomplete
  case noKey
}

@available(iOS 17.0, *)
func openSealed(_ push: [AnyHashable: Any], with key: Curve25519.KeyAgreement.PrivateKey?) throws -> SealedText {
  guard let taskID = push["task_id"] as? String, let kind = push["kind"] as? String,
    let base64 = push["sealed"] as? String, let sealed = Data(base64Encoded: base64), sealed.count > 48
  else { throw Unsealable.incomplete }
  guard let key = key else { throw Unsealable.noKey }
  var recipient = try HPKE.Recipient(
    privateKey: key,
    ciphersuite: .Curve25519_SHA256_ChachaPoly,
    info: Data("fastbell/1/\(taskID)/\(kind)".utf8),
    encapsulatedKey: Data(sealed.prefix(32)))
  return try JSONDecoder().decode(SealedText.self, from: try recipient.open(Data(sealed.dropFirst(32))))
}
