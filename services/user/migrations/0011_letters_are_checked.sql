ALTER TABLE users.notifications
    VALIDATE CONSTRAINT notifications_letters_account,
    VALIDATE CONSTRAINT notifications_recipient;
