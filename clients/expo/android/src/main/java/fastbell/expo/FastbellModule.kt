package fastbell.expo

import android.content.Context
import android.util.Base64
import android.util.Log
import expo.modules.kotlin.modules.Module
import expo.modules.kotlin.modules.ModuleDefinition

private const val UNOPENED = "no sealed texts: the app's manifest has no FastbellMessagingService, or another service in its" +
  " place. Add the plugin @fastbell/expo (sealed is true by default), or the service by hand."

/** The key for sealed texts, for JavaScript: its public half, and its end. */
class FastbellModule : Module() {
  private val context: Context
    get() = requireNotNull(appContext.reactContext) { "the app has no context yet" }

  private val keys: Keys
    get() = Keys(context)

  override fun definition() = ModuleDefinition {
    Name("Fastbell")

    AsyncFunction("publicKey") {
      if (!opensSealedTexts(context)) {
        Log.w("Fastbell", UNOPENED)
        error(UNOPENED) // no key is registered, so the server sends generic texts, which Firebase shows in their channel
      }
      Base64.encodeToString(publicBytes(keys.take()), Base64.NO_WRAP)
    }

    AsyncFunction("forgetKey") {
      keys.forget()
    }
  }
}
