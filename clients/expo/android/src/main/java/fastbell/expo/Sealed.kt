package fastbell.expo

import com.google.crypto.tink.HybridDecrypt
import com.google.crypto.tink.KeysetHandle
import com.google.crypto.tink.RegistryConfiguration
import com.google.crypto.tink.hybrid.HpkeParameters
import com.google.crypto.tink.hybrid.HpkePrivateKey
import com.google.crypto.tink.hybrid.HybridConfig
import org.json.JSONObject

/** Sealed texts, as docs/encryption.md says: HPKE, base mode, bound to their push. No Android in here. */
data class Text(val title: String, val body: String)

val SUITE: HpkeParameters = HpkeParameters.builder()
  .setKemId(HpkeParameters.KemId.DHKEM_X25519_HKDF_SHA256)
  .setKdfId(HpkeParameters.KdfId.HKDF_SHA256)
  .setAeadId(HpkeParameters.AeadId.CHACHA20_POLY1305)
  .setVariant(HpkeParameters.Variant.NO_PREFIX)
  .build()

fun newKey(): KeysetHandle {
  HybridConfig.register()
  return KeysetHandle.generateNew(SUITE)
}

/** 32 bytes. */
fun publicBytes(key: KeysetHandle): ByteArray =
  (key.primary.key as HpkePrivateKey).publicKey.publicKeyBytes.toByteArray()

/** Open what was sealed for this push; throws where it was for another one, or for another key. */
fun openSealed(sealed: ByteArray, taskId: String, kind: String, key: KeysetHandle): Text {
  HybridConfig.register()
  val decrypt = key.getPrimitive(RegistryConfiguration.get(), HybridDecrypt::class.java)
  val text = JSONObject(String(decrypt.decrypt(sealed, "fastbell/1/$taskId/$kind".toByteArray()), Charsets.UTF_8))
  return Text(text.getString("title"), text.getString("body"))
}
