package fastbell.expo

import android.util.Base64
import expo.modules.kotlin.modules.Module
import expo.modules.kotlin.modules.ModuleDefinition

/** The key for sealed texts, for JavaScript: its public half, and its end. */
class FastbellModule : Module() {
  private val keys: Keys
    get() = Keys(requireNotNull(appContext.reactContext) { "the app has no context yet" })

  override fun definition() = ModuleDefinition {
    Name("Fastbell")

    AsyncFunction("publicKey") {
      Base64.encodeToString(publicBytes(keys.take()), Base64.NO_WRAP)
    }

    AsyncFunction("forgetKey") {
      keys.forget()
    }
  }
}
