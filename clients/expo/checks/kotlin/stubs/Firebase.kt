// What is used of Firebase Cloud Messaging, to compile against.

package com.google.firebase.messaging

import android.app.Service
import android.content.Intent
import android.os.Bundle
import android.os.IBinder

class RemoteMessage(@Suppress("UNUSED_PARAMETER") bundle: Bundle) {
  val data: Map<String, String> get() = error("a stub")
  fun toIntent(): Intent = error("a stub")
}

open class FirebaseMessagingService : Service() {
  override fun onBind(intent: Intent): IBinder? = error("a stub")
  open fun onMessageReceived(remoteMessage: RemoteMessage) = Unit
  open fun onNewToken(token: String) = Unit
  open fun onDeletedMessages() = Unit
}
