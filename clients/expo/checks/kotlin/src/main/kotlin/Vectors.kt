package fastbell.expo

import com.google.crypto.tink.InsecureSecretKeyAccess
import com.google.crypto.tink.KeysetHandle
import com.google.crypto.tink.hybrid.HpkePrivateKey
import com.google.crypto.tink.hybrid.HpkePublicKey
import com.google.crypto.tink.util.Bytes
import com.google.crypto.tink.util.SecretBytes
import expo.modules.notifications.notifications.model.NotificationData
import java.io.File
import java.util.Base64
import org.json.JSONObject

/**
 * Opens the vectors of docs/encryption.md with the code of the app, and asks expo-notifications what it would show of a
 * sealed push that nobody opens; ends with an error where one is not as it should be.
 */
fun main(arguments: Array<String>) {
  val blocks = Regex("```text\n(private key.*?)```", RegexOption.DOT_MATCHES_ALL).findAll(File(arguments[0]).readText())
  val vectors = blocks.map { block ->
    block.groupValues[1].trim().lines().associate { line -> line.split(Regex("  +"), 2).let { it[0] to it[1] } }
  }.toList()
  check(vectors.size >= 2) { "docs/encryption.md has no vectors" }
  for (vector in vectors) {
    val key = keyOf(vector.getValue("private key"), vector.getValue("public_key"))
    val sealed = Base64.getDecoder().decode(vector.getValue("sealed"))
    val (taskId, kind) = vector.getValue("task_id") to vector.getValue("kind")
    val expected = JSONObject(vector.getValue("plaintext"))
    check(openSealed(sealed, taskId, kind, key) == Text(expected.getString("title"), expected.getString("body")))
    check(Base64.getEncoder().encodeToString(publicBytes(key)) == vector.getValue("public_key"))
    for ((otherTask, otherKind, otherKey) in listOf(
      Triple(taskId, "message", key),
      Triple(taskId.reversed(), kind, key),
      Triple(taskId, kind, newKey()),
    )) {
      check(runCatching { openSealed(sealed, otherTask, otherKind, otherKey) }.isFailure) { "opened for another push or key" }
    }
  }
  check(publicBytes(newKey()).size == 32)
  val generic = NotificationData(mapOf("title" to "Reminder", "body" to "Open the app.", "message" to "Open the app."))
  check(generic.title == "Reminder" && generic.message == "Open the app." && generic.body == null) {
    "expo-notifications takes the text of a data message from elsewhere"
  }
  println("${vectors.size} vectors opened")
}

private fun keyOf(privateHex: String, publicBase64: String): KeysetHandle {
  val public = HpkePublicKey.create(SUITE, Bytes.copyFrom(Base64.getDecoder().decode(publicBase64)), null)
  val bytes = privateHex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
  val key = HpkePrivateKey.create(public, SecretBytes.copyFrom(bytes, InsecureSecretKeyAccess.get()))
  return KeysetHandle.newBuilder().addEntry(KeysetHandle.importKey(key).withRandomId().makePrimary()).build()
}
