// The key for sealed texts, for JavaScript: its public half, and its end.

import ExpoModulesCore

public final class FastbellModule: Module {
  public func definition() -> ModuleDefinition {
    Name("Fastbell")

    AsyncFunction("publicKey") { () throws -> String in
      try Keys.publicKey().base64EncodedString()
    }

    AsyncFunction("forgetKey") { () throws in
      try Keys.forget()
    }
  }
}
