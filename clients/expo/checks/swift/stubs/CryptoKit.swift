// What is used of Apple's CryptoKit, to type-check against. It opens nothing.

import Foundation

public enum Curve25519 {
  public enum KeyAgreement {
    public struct PublicKey {
      public var rawRepresentation: Data { Data() }
    }
    public struct PrivateKey {
      public init() {}
      public init(rawRepresentation: Data) throws {}
      public var rawRepresentation: Data { Data() }
      public var publicKey: PublicKey { PublicKey() }
    }
  }
}

public enum HPKE {
  public struct Ciphersuite {
    public static let Curve25519_SHA256_ChachaPoly = Ciphersuite()
  }
  public struct Recipient {
    public init(
      privateKey: Curve25519.KeyAgreement.PrivateKey, ciphersuite: Ciphersuite, info: Data, encapsulatedKey: Data
    ) throws {}
    public mutating func open(_ ciphertext: Data) throws -> Data { ciphertext }
  }
}
