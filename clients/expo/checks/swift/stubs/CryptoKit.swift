// What is used of Apple's CryptoKit, to type-check against, and to open the vectors of docs/encryption.md with: HPKE in base
// mode as RFC 9180 has it, for one suite. Slow and not constant in time: for checks only.

import Foundation

public enum CryptoKitError: Error {
  case authenticationFailure
  case incorrectParameterSize
}

public enum Curve25519 {
  public enum KeyAgreement {
    public struct PublicKey {
      public let rawRepresentation: Data
    }
    public struct PrivateKey {
      public let rawRepresentation: Data
      public init() {
        rawRepresentation = Data((0..<32).map { _ in UInt8.random(in: 0...255) })
      }
      public init(rawRepresentation: Data) throws {
        guard rawRepresentation.count == 32 else { throw CryptoKitError.incorrectParameterSize }
        self.rawRepresentation = rawRepresentation
      }
      public var publicKey: PublicKey {
        PublicKey(rawRepresentation: Data(x25519([UInt8](rawRepresentation), [9] + [UInt8](repeating: 0, count: 31))))
      }
    }
  }
}

public enum HPKE {
  public struct Ciphersuite {
    public static let Curve25519_SHA256_ChachaPoly = Ciphersuite()
  }

  public struct Recipient {
    private let key: [UInt8]
    private let nonce: [UInt8]

    public init(
      privateKey: Curve25519.KeyAgreement.PrivateKey, ciphersuite: Ciphersuite, info: Data, encapsulatedKey: Data
    ) throws {
      guard encapsulatedKey.count == 32 else { throw CryptoKitError.incorrectParameterSize }
      let enc = [UInt8](encapsulatedKey)
      let kem = Schedule(suite: Array("KEM".utf8) + [0, 0x20])
      let agreed = x25519([UInt8](privateKey.rawRepresentation), enc)
      let context = enc + [UInt8](privateKey.publicKey.rawRepresentation)
      let shared = kem.expand(kem.extract([], "eae_prk", agreed), "shared_secret", context, 32)
      let schedule = Schedule(suite: Array("HPKE".utf8) + [0, 0x20, 0, 1, 0, 3])
      let bound = [0] + schedule.extract([], "psk_id_hash", []) + schedule.extract([], "info_hash", [UInt8](info))
      let secret = schedule.extract(shared, "secret", [])
      key = schedule.expand(secret, "key", bound, 32)
      nonce = schedule.expand(secret, "base_nonce", bound, 12)
    }

    public mutating func open(_ ciphertext: Data) throws -> Data {
      guard let text = openChaChaPoly([UInt8](ciphertext), key: key, nonce: nonce) else {
        throw CryptoKitError.authenticationFailure
      }
      return Data(text)
    }
  }

  /// Labelled HKDF, RFC 9180, section 4.
  private struct Schedule {
    let suite: [UInt8]

    func extract(_ salt: [UInt8], _ label: String, _ material: [UInt8]) -> [UInt8] {
      hmac(salt, Array("HPKE-v1".utf8) + suite + Array(label.utf8) + material)
    }

    /// At most 32 bytes: one block of HKDF-Expand.
    func expand(_ secret: [UInt8], _ label: String, _ info: [UInt8], _ length: Int) -> [UInt8] {
      let labelled = [0, UInt8(length)] + Array("HPKE-v1".utf8) + suite + Array(label.utf8) + info
      return Array(hmac(secret, labelled + [1]).prefix(length))
    }
  }
}
