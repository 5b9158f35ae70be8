package fastbell.expo

import android.content.Context
import android.content.Intent
import android.os.Bundle
import android.util.Base64
import android.util.Log
import com.google.firebase.messaging.RemoteMessage
import expo.modules.notifications.service.ExpoFirebaseMessagingService

/** Whether this app hands its pushes to our service, or to one that is made of it: Firebase asks the system as here. */
fun opensSealedTexts(context: Context): Boolean {
  val push = Intent("com.google.firebase.MESSAGING_EVENT").setPackage(context.packageName)
  val name = context.packageManager.resolveService(push, 0)?.serviceInfo?.name ?: return false
  return try {
    FastbellMessagingService::class.java.isAssignableFrom(Class.forName(name))
  } catch (_: ClassNotFoundException) {
    false
  }
}

/**
 * Opens sealed texts before expo-notifications shows them; everything else, tokens included, is its own.
 *
 * It runs without JavaScript, on a killed app, too. The line is shown by expo-notifications under the push's tag, so that
 * a tap on it is told like any other.
 */
open class FastbellMessagingService : ExpoFirebaseMessagingService() {
  override fun onMessageReceived(remoteMessage: RemoteMessage) {
    val push = remoteMessage.data
    if (push["task_id"] == null || push["title"] == null) {
      super.onMessageReceived(remoteMessage) // not ours, or shown by Firebase itself
      return
    }
    val text = opened(push)
    // toIntent() and the constructor below are public, though Firebase's pages leave them out (@hide). The builder that its
    // pages have forgets when the push was sent, and its priority.
    val extras = Bundle(remoteMessage.toIntent().extras ?: Bundle())
    extras.putString("title", text?.title ?: push["title"])
    extras.putString("message", text?.body ?: push["message"] ?: push["body"]) // what expo-notifications takes for the text
    extras.putString("channelId", channel(push))
    extras.remove("body") // it takes this one for data
    extras.remove("sealed")
    super.onMessageReceived(RemoteMessage(extras))
  }

  /** The channel that the server names: the app's presentation may have its own. */
  private fun channel(push: Map<String, String>): String = push["channelId"] ?: when {
    push["silent"] == "true" -> "quiet"
    push["kind"] == "message" -> "messages"
    else -> "reminders"
  }

  /** The text, null for the generic one: a push is never dropped. */
  private fun opened(push: Map<String, String>): Text? = try {
    val key = Keys(this).read()
    val sealed = push["sealed"]
    val taskId = push["task_id"]
    val kind = push["kind"]
    if (key == null || sealed == null || taskId == null || kind == null) {
      null
    } else {
      openSealed(Base64.decode(sealed, Base64.DEFAULT), taskId, kind, key)
    }
  } catch (trouble: Exception) {
    Log.w("Fastbell", "a sealed text did not open: ${trouble.javaClass.simpleName}")
    null
  }
}
