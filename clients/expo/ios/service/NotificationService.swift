// Runs before a push with `mutable-content` is shown, also on a locked phone: opens its sealed text.

import UserNotifications

class NotificationService: UNNotificationServiceExtension {
  private var show: ((UNNotificationContent) -> Void)?
  private var content: UNMutableNotificationContent?

  override func didReceive(
    _ request: UNNotificationRequest, withContentHandler contentHandler: @escaping (UNNotificationContent) -> Void
  ) {
    guard let copy = request.content.mutableCopy() as? UNMutableNotificationContent else {
      contentHandler(request.content)
      return
    }
    show = contentHandler
    content = copy
    if let text = try? openSealed(copy.userInfo, with: try Keys.privateKey()) {
      copy.title = text.title
      copy.body = text.body
    }
    answer()  // generic where it did not open: a push is never dropped, and here it could not be
  }

  override func serviceExtensionTimeWillExpire() {
    answer()
  }

  private func answer() {
    if let show = show, let content = content {
      self.show = nil
      show(content)
    }
  }
}
