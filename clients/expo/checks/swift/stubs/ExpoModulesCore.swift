// What is used of expo-modules-core, to type-check against.

public struct ModuleDefinition {}
public struct AnyDefinition {}

@resultBuilder
public enum ModuleDefinitionBuilder {
  public static func buildBlock(_ definitions: AnyDefinition...) -> ModuleDefinition { ModuleDefinition() }
}

public protocol AnyModule {
  @ModuleDefinitionBuilder
  func definition() -> ModuleDefinition
}

open class BaseModule {
  public init() {}
}

public typealias Module = AnyModule & BaseModule

public func Name(_ name: String) -> AnyDefinition { AnyDefinition() }
public func AsyncFunction<R>(_ name: String, _ closure: @escaping () throws -> R) -> AnyDefinition { AnyDefinition() }
