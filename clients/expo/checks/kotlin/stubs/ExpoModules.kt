// What is used of expo-modules-core, to compile against.

package expo.modules.kotlin.modules

import android.content.Context

class AppContext {
  val reactContext: Context? get() = error("a stub")
}

class ModuleDefinitionData

class ModuleDefinitionBuilder {
  fun Name(@Suppress("UNUSED_PARAMETER") name: String) = Unit
  fun AsyncFunction(@Suppress("UNUSED_PARAMETER") name: String, @Suppress("UNUSED_PARAMETER") body: () -> Any?) = Unit
}

abstract class Module {
  val appContext: AppContext get() = error("a stub")
  abstract fun definition(): ModuleDefinitionData
}

fun ModuleDefinition(@Suppress("UNUSED_PARAMETER") block: ModuleDefinitionBuilder.() -> Unit): ModuleDefinitionData = error("a stub")
