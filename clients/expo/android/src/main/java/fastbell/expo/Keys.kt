package fastbell.expo

import android.content.Context
import com.google.crypto.tink.Aead
import com.google.crypto.tink.KeysetHandle
import com.google.crypto.tink.TinkProtoKeysetFormat
import com.google.crypto.tink.integration.android.AndroidKeystore
import java.io.File
import java.security.GeneralSecurityException

private const val MASTER_KEY = "fastbell"
private val PURPOSE = "fastbell/sealed-texts/1".toByteArray()

/**
 * The private key for sealed texts: made here, on disk only as encrypted by a key that Android's key store never hands out.
 *
 * The file is out of backups: on another phone nothing could read it.
 */
class Keys(context: Context) {
  private val file = File(context.noBackupFilesDir, "fastbell.key")

  /** The key, null where there is none or it cannot be read any more. */
  fun read(): KeysetHandle? = synchronized(LOCK) {
    if (!file.exists() || !AndroidKeystore.hasKey(MASTER_KEY)) {
      return null
    }
    try {
      TinkProtoKeysetFormat.parseEncryptedKeyset(file.readBytes(), master(), PURPOSE)
    } catch (_: GeneralSecurityException) {
      null // some phones lose their key store's keys in a system update: the next registration brings a new one
    }
  }

  /** The key; makes it where there is none. */
  fun take(): KeysetHandle = synchronized(LOCK) {
    read() ?: newKey().also { made ->
      if (!AndroidKeystore.hasKey(MASTER_KEY)) {
        AndroidKeystore.generateNewAes256GcmKey(MASTER_KEY)
      }
      val half = File(file.path + ".new")
      half.writeBytes(TinkProtoKeysetFormat.serializeEncryptedKeyset(made, master(), PURPOSE))
      check(half.renameTo(file)) { "the key could not be kept" }
    }
  }

  fun forget() = synchronized(LOCK) {
    file.delete()
    AndroidKeystore.deleteKey(MASTER_KEY)
  }

  private fun master(): Aead = AndroidKeystore.getAead(MASTER_KEY)

  private companion object {
    val LOCK = Any()
  }
}
