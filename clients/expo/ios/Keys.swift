// The private key for sealed texts: made here, kept in the keychain, read by the app and its notification service
// extension. The config plugin copies this file into the extension's target, too.

import CryptoKit
import Foundation
import Security

enum Keys {
  enum Trouble: Error {
    case noGroup
    case keychain(OSStatus)
  }

  /// The public half; makes the key where there is none. Throws on a phone that was never unlocked since its start.
  static func publicKey() throws -> Data {
    if let key = try privateKey() {
      return key.publicKey.rawRepresentation
    }
    let made = Curve25519.KeyAgreement.PrivateKey()
    var item = try query()
    item[kSecValueData] = made.rawRepresentation
    // On a locked phone the extension has to read it, and no other phone may get it from a backup.
    item[kSecAttrAccessible] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
    let status = SecItemAdd(item as CFDictionary, nil)
    if status == errSecDuplicateItem, let key = try privateKey() {
      return key.publicKey.rawRepresentation
    }
    guard status == errSecSuccess else { throw Trouble.keychain(status) }
    return made.publicKey.rawRepresentation
  }

  /// The key, nil where there is none: before the first registration, and after a sign-out.
  static func privateKey() throws -> Curve25519.KeyAgreement.PrivateKey? {
    var item = try query()
    item[kSecReturnData] = true
    var found: CFTypeRef?
    let status = SecItemCopyMatching(item as CFDictionary, &found)
    if status == errSecItemNotFound {
      return nil
    }
    guard status == errSecSuccess, let bytes = found as? Data else { throw Trouble.keychain(status) }
    return try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: bytes)
  }

  static func forget() throws {
    let status = SecItemDelete(try query() as CFDictionary)
    guard status == errSecSuccess || status == errSecItemNotFound else { throw Trouble.keychain(status) }
  }

  /// Every query names the group, or the extension looks where the app never wrote. Its full name begins with the team's
  /// prefix, which only the build knows: Info.plist has it.
  private static func query() throws -> [CFString: Any] {
    guard let group = Bundle.main.object(forInfoDictionaryKey: "FastbellKeychainGroup") as? String else {
      throw Trouble.noGroup
    }
    return [
      kSecClass: kSecClassGenericPassword,
      kSecAttrService: "fastbell",
      kSecAttrAccount: "sealed-texts-1",
      kSecAttrAccessGroup: group,
    ]
  }
}
