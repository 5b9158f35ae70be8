// What is used of Apple's UserNotifications, to type-check against.

import Foundation

open class UNNotificationContent: NSObject {
  open var title: String { "" }
  open var body: String { "" }
  open var userInfo: [AnyHashable: Any] { [:] }
}

open class UNMutableNotificationContent: UNNotificationContent {
  private var kept = ("", "")
  open override var title: String {
    get { kept.0 }
    set { kept.0 = newValue }
  }
  open override var body: String {
    get { kept.1 }
    set { kept.1 = newValue }
  }
}

open class UNNotificationRequest: NSObject {
  open var content: UNNotificationContent { UNNotificationContent() }
}

open class UNNotificationServiceExtension: NSObject {
  open func didReceive(
    _ request: UNNotificationRequest, withContentHandler contentHandler: @escaping (UNNotificationContent) -> Void
  ) {}
  open func serviceExtensionTimeWillExpire() {}
}
