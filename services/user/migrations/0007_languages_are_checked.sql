ALTER TABLE users.accounts VALIDATE CONSTRAINT accounts_language_check;
